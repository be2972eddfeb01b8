//! Fused attention: how the work is cut.
//!
//! A task takes a run of consecutive tokens of one sequence and one cached head, so that the keys are transposed once for
//! all of them. A step of a few tokens over long contexts has fewer such tasks than threads. Then the splits of a context,
//! which are computed independently in any case, are tasks, and a second job merges their partial results in order.

use std::sync::{Mutex, PoisonError};

use model::{AttentionOp, Batch, KvHeads, KvShape};

use crate::disjoint::{Columns, Disjoint};
use crate::kernels::{
    Kernels, KvElement, KvRows, MAX_HEAD_DIM, MAX_HEADS, PageLayout, Partial, Queries, RUN, Running, SPLIT,
};
use crate::pool::ThreadPool;

/// A batch, and its rows in the runs that attention takes.
pub struct CpuPlan {
    pub(crate) batch: Batch,
    runs: Vec<Run>,
}

/// Consecutive rows of one sequence.
#[derive(Clone, Copy)]
struct Run {
    first_row: usize,
    tokens: usize,
}

impl CpuPlan {
    pub(crate) fn new(batch: Batch) -> Self {
        let runs = Vec::with_capacity(batch.limits().max_tokens);
        Self { batch, runs }
    }

    pub(crate) fn copy_from(&mut self, batch: &Batch) {
        self.batch.copy_from(batch);
        self.runs.clear();
        for rows in batch.cu_seqlens_q().windows(2) {
            let rows = rows[0] as usize..rows[1] as usize;
            let run = |first_row| Run { first_row, tokens: RUN.min(rows.end - first_row) };
            self.runs.extend(rows.clone().step_by(RUN).map(run));
        }
    }
}

/// Floats of scratch that let `threads` threads share the splits of contexts as long as a cache of this shape holds.
pub(crate) fn scratch_len(threads: usize, shape: &KvShape) -> usize {
    let head_dim = shape.layers.iter().map(|heads: &KvHeads| heads.head_dim).max().unwrap_or(0);
    match (shape.num_pages * shape.page_size).div_ceil(SPLIT) {
        0 | 1 => 0,
        splits => tasks_wanted(threads) * splits * MAX_HEADS * (head_dim + 2),
    }
}

/// Tasks that keep all threads busy even if some take twice as long as others.
fn tasks_wanted(threads: usize) -> usize {
    2 * threads
}

/// Attention of a whole batch in one layer.
pub(crate) struct Attention<'a, E> {
    pub kernels: &'a Kernels,
    pub plan: &'a CpuPlan,
    pub op: AttentionOp,
    /// `[T, op.shape.cols()]`
    pub qkv: &'a [f32],
    /// `[num_heads]` logits that have no value.
    pub sinks: Option<&'a [f32]>,
    pub layout: PageLayout,
    pub k: &'a [E],
    pub v: &'a [E],
}

impl<E: KvElement> Attention<'_, E> {
    /// `out: [T, op.shape.q_cols()]`.
    pub fn run(&self, pool: &ThreadPool, scratch: &Mutex<Vec<f32>>, out: &mut [f32]) {
        let (runs, heads) = (&self.plan.runs, self.op.shape.num_kv_heads);
        let num_tasks = runs.len() * heads;
        let splits = self.plan.batch.context_lens().iter().map(|&len| (len as usize).div_ceil(SPLIT)).max();
        let decodes = runs.len() == self.plan.batch.num_tokens();
        let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let out = Disjoint::new(out);
        match splits {
            Some(splits @ 2..)
                if decodes
                    && num_tasks < tasks_wanted(pool.num_threads())
                    && num_tasks * splits * self.partial_len() <= scratch.len() =>
            {
                self.run_splits(pool, splits, &mut scratch, &out);
            }
            _ => pool.run(num_tasks, |task| self.attend_run(&runs[task / heads], task % heads, &out)),
        }
    }

    /// Query heads of a cached head.
    fn group(&self) -> usize {
        self.op.shape.num_heads / self.op.shape.num_kv_heads
    }

    /// A run's rows for one cached head, all splits.
    fn attend_run(&self, run: &Run, kv_head: usize, out: &Disjoint<'_, f32>) {
        let head_dim = self.op.shape.head_dim;
        for first_head in (0..self.group()).step_by(MAX_HEADS) {
            let queries = self.queries(run, kv_head, first_head);
            let splits = (queries.first_seen(0) / SPLIT, (queries.context + run.tokens - 1).div_ceil(SPLIT));
            let start =
                run.first_row * self.op.shape.q_cols() + (kv_head * self.group() + first_head) * head_dim;
            let (stride, width) = (self.op.shape.q_cols(), queries.heads * head_dim);
            // SAFETY: each task takes the columns of its own heads in the rows of its own run; a job runs each task once, and
            // `CpuPlan::copy_from` cuts runs that share no row.
            let mut out = unsafe { out.columns(start, run.tokens, stride, width) };
            let mut running = Running::new();
            self.kernels.attend(&queries, splits, self.rows(run, kv_head), &mut running, &mut out);
            let first_head = kv_head * self.group() + first_head;
            for t in 0..run.tokens {
                let heads = running.max[t].iter_mut().zip(&mut running.sum[t]);
                let heads = heads.zip(out.row(t).chunks_exact_mut(head_dim)).enumerate();
                for (head, ((max, sum), out)) in heads {
                    self.finish(first_head + head, (max, sum), out);
                }
            }
        }
    }

    fn queries(&self, run: &Run, kv_head: usize, first_head: usize) -> Queries<'_> {
        let head_dim = self.op.shape.head_dim;
        let stride = self.op.shape.cols();
        Queries {
            values: &self.qkv[run.first_row * stride + (kv_head * self.group() + first_head) * head_dim..],
            stride,
            heads: MAX_HEADS.min(self.group() - first_head),
            tokens: run.tokens,
            context: self.plan.batch.positions()[run.first_row] as usize + 1,
            scale: self.op.scale,
            softcap: self.op.softcap,
            window: self.op.window.unwrap_or(usize::MAX),
        }
    }

    /// The keys and values of a run's sequence.
    fn rows(&self, run: &Run, kv_head: usize) -> (KvRows<'_, E>, KvRows<'_, E>) {
        let batch = &self.plan.batch;
        let block_table = batch.block_table(batch.seq_of_row()[run.first_row] as usize);
        let rows = |layer| KvRows { layer, block_table, layout: self.layout, kv_head };
        (rows(self.k), rows(self.v))
    }

    /// Floats of a split's partial result: values, maxima and sums of a cached head's query heads.
    fn partial_len(&self) -> usize {
        self.group() * (self.op.shape.head_dim + 2)
    }

    /// Decodes whose splits are shared by all threads, through `scratch: [run][cached head][split][partial]`.
    fn run_splits(&self, pool: &ThreadPool, splits: usize, scratch: &mut [f32], out: &Disjoint<'_, f32>) {
        let (runs, heads, partial_len) = (&self.plan.runs, self.op.shape.num_kv_heads, self.partial_len());
        // Those that the row sees something of.
        let splits_of = |run: &Run| {
            let position = self.plan.batch.positions()[run.first_row] as usize;
            self.op.first_seen(position) / SPLIT..(position + 1).div_ceil(SPLIT)
        };
        let partials = Disjoint::new(scratch);
        pool.run(runs.len() * heads * splits, |task| {
            let (run, kv_head, split) = (&runs[task / splits / heads], task / splits % heads, task % splits);
            if splits_of(run).contains(&split) {
                // SAFETY: each task takes the floats of its own split, and a job runs each task once.
                self.attend_split(run, kv_head, split, unsafe {
                    partials.slice(task * partial_len, partial_len)
                });
            }
        });
        let scratch = &*scratch;
        pool.run(runs.len() * heads, |task| {
            let (run, kv_head) = (&runs[task / heads], task % heads);
            let width = self.group() * self.op.shape.head_dim;
            // SAFETY: as in `attend_run`.
            let out = unsafe { out.slice(run.first_row * self.op.shape.q_cols() + kv_head * width, width) };
            let of_run = splits_of(run);
            let partials = &scratch[task * splits * partial_len..];
            let partials = &partials[of_run.start * partial_len..of_run.end * partial_len];
            self.merge(partials, kv_head * self.group(), out);
        });
    }

    fn attend_split(&self, run: &Run, kv_head: usize, split: usize, partial: &mut [f32]) {
        let (values, rest) = partial.split_at_mut(self.group() * self.op.shape.head_dim);
        let (maxima, sums) = rest.split_at_mut(self.group());
        for first_head in (0..self.group()).step_by(MAX_HEADS) {
            let queries = self.queries(run, kv_head, first_head);
            let heads = first_head..first_head + queries.heads;
            let width = queries.heads * self.op.shape.head_dim;
            let values = &mut values[first_head * self.op.shape.head_dim..][..width];
            let mut running = Running::new();
            let mut out = Columns::of(values, width);
            let rows = self.rows(run, kv_head);
            self.kernels.attend(&queries, (split, split + 1), rows, &mut running, &mut out);
            maxima[heads.clone()].copy_from_slice(&running.max[0][..queries.heads]);
            sums[heads].copy_from_slice(&running.sum[0][..queries.heads]);
        }
    }

    /// Merges the partial results of a row's splits, `[split][partial]`, in order; `first_head` is the first of the cached head's
    /// query heads.
    fn merge(&self, partials: &[f32], first_head: usize, out: &mut [f32]) {
        let (head_dim, group) = (self.op.shape.head_dim, self.group());
        let mut partials = partials.chunks_exact(self.partial_len());
        let first = partials.next().expect("a row has a split");
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let of_head = |partial: &'_ [f32]| {
                let values = head * head_dim..(head + 1) * head_dim;
                (partial[group * head_dim + head], partial[group * (head_dim + 1) + head], values)
            };
            let (mut max, mut sum, values) = of_head(first);
            out.copy_from_slice(&first[values]);
            for partial in partials.clone() {
                let (partial_max, partial_sum, values) = of_head(partial);
                let partial = Partial { max: partial_max, sum: partial_sum, values: &partial[values] };
                self.kernels.merge_partial(&mut max, &mut sum, out, &partial);
            }
            self.finish(first_head + head, (&mut max, &mut sum), out);
        }
    }

    /// Takes a head's sink in, if it has one, and divides the values by the sum.
    fn finish(&self, head: usize, (max, sum): (&mut f32, &mut f32), out: &mut [f32]) {
        if let Some(sinks) = self.sinks {
            let sink = Partial { max: sinks[head], sum: 1.0, values: &[0.0; MAX_HEAD_DIM][..out.len()] };
            self.kernels.merge_partial(max, sum, out, &sink);
        }
        out.iter_mut().for_each(|value| *value /= *sum);
    }
}
