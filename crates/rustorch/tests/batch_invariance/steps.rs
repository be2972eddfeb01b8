//! Random steps: which sequences take part, in which order, with how many tokens and in which pages, is drawn anew for
//! each; now and then a sequence loses its pages and begins again. Every row of logits is compared.

use std::ops::Range;
use std::sync::Arc;

use model::{Backend, Batch, BatchLimits, Output, Rows, Runner, Want};
use proptest::prelude::*;
use testkit::Rng;

use super::{MAX_SEQ_LEN, Numerics, TestModel, for_random, runner, same_bits, test_model};

/// What must not show.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub threads: usize,
    pub page_size: usize,
    /// Of a step.
    pub max_tokens: usize,
    /// Of a step.
    pub max_seqs: usize,
    /// Most tokens of one sequence in a step.
    pub max_chunk: usize,
    /// Pages beyond those that the longest sequence needs.
    pub spare_pages: usize,
    /// How often each sequence runs.
    pub copies: usize,
    /// Of the choices made at each step.
    pub seed: u64,
}

pub fn conditions() -> impl Strategy<Value = Conditions> {
    (1..=4usize, 1..=64usize, 1..=80usize, 1..=8usize, 1..=80usize, 0..=24usize, 1..=2usize, any::<u64>())
        .prop_map(|(threads, page_size, max_tokens, max_seqs, max_chunk, spare_pages, copies, seed)| {
            Conditions { threads, page_size, max_tokens, max_seqs, max_chunk, spare_pages, copies, seed }
        })
}

/// What every token of each sequence yields.
pub struct Wanted {
    /// `[sequences][tokens][vocabulary]`
    logits: Vec<Vec<Vec<f32>>>,
    /// `[sequences][tokens][hidden_size]`
    hidden_states: Vec<Vec<Vec<f32>>>,
}

/// Random sequences of these lengths.
pub fn sequences(model: &TestModel, lengths: &[usize]) -> Vec<Vec<u32>> {
    let vocab = model.gguf.tensor("token_embd.weight").expect("an embedding").rows();
    let mut rng = Rng::new(7);
    lengths.iter().map(|&len| (0..len).map(|_| rng.below(vocab as u32)).collect()).collect()
}

/// Each sequence by itself: all its tokens in one step, its pages in order.
pub fn alone<B: Backend>(
    backend: Arc<B>,
    model: &TestModel,
    numerics: Numerics,
    sequences: &[Vec<u32>],
) -> Wanted {
    let mut runner = runner(backend, &model.gguf, numerics, 32, |config| BatchLimits {
        max_tokens: MAX_SEQ_LEN,
        max_seqs: 1,
        max_logit_rows: MAX_SEQ_LEN,
        max_blocks: config.pages_per_seq(),
        num_pages: config.pages_per_seq(),
    });
    let spec = runner.spec();
    let pages: Vec<u32> = (0..spec.limits.num_pages as u32).collect();
    let mut batch = Batch::new(spec.limits, spec.page_size);
    let mut run = |want| -> Vec<Vec<Vec<f32>>> {
        let one = |tokens: &Vec<u32>| {
            batch.clear();
            batch.push(tokens, 0, &pages, want);
            match runner.run(&batch).expect("a step").of(0) {
                Output::Logits(rows) | Output::Hidden(rows) => {
                    rows.chunks_exact(rows.len() / tokens.len()).map(<[f32]>::to_vec).collect()
                }
                output => panic!("{output:?} for {want:?}"),
            }
        };
        sequences.iter().map(one).collect()
    };
    Wanted { logits: run(Want::Logits(Rows::All)), hidden_states: run(Want::Hidden(Rows::All)) }
}

/// Runs `sequences` in random steps and compares each row of logits and each hidden state with `want`.
pub fn check<B: Backend>(
    backend: Arc<B>,
    model: &TestModel,
    numerics: Numerics,
    (sequences, want): (&[Vec<u32>], &Wanted),
    conditions: &Conditions,
) -> Result<(), String> {
    let Conditions { page_size, max_tokens, spare_pages, copies, .. } = *conditions;
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let mut runner = runner(backend, &model.gguf, numerics, page_size, |config| {
        let (max_seqs, max_blocks) = (conditions.max_seqs, config.pages_per_seq());
        let num_pages = longest.div_ceil(page_size) + spare_pages;
        BatchLimits { max_tokens, max_seqs, max_logit_rows: max_tokens, max_blocks, num_pages }
    });
    let spec = runner.spec();
    let mut batch = Batch::new(spec.limits, page_size);
    let work = (0..copies * sequences.len()).map(|i| i % sequences.len()).collect();
    let mut schedule = Schedule::new(sequences, work, spec.limits.num_pages, conditions);
    let alone = |seq: usize| (want.logits[seq].as_slice(), want.hidden_states[seq].as_slice());
    while let Some(parts) = schedule.next_step(&mut batch) {
        let output = runner.run(&batch).map_err(|error| error.to_string())?;
        for (idx, (seq, positions)) in parts.into_iter().enumerate() {
            let (kind, rows) = batch.wanted(idx);
            let wanted = positions.end - rows.len()..positions.end;
            check_rows(output.of(idx), kind, alone(seq), wanted).map_err(|difference| {
                format!("{}, {numerics:?}: sequence {seq}, {difference}", model.name)
            })?;
        }
    }
    Ok(())
}

/// The rows of a sequence's last positions against those of the sequence alone.
fn check_rows(
    got: Output<'_>,
    want: Want,
    (logits, hidden_states): (&[Vec<f32>], &[Vec<f32>]),
    positions: Range<usize>,
) -> Result<(), String> {
    let same_rows = |got: &[f32], want: &[Vec<f32>]| {
        let want = &want[positions.clone()];
        assert_eq!(got.len(), want.len() * want[0].len());
        for ((position, want), got) in positions.clone().zip(want).zip(got.chunks_exact(want[0].len())) {
            same_bits(got, want).map_err(|difference| format!("position {position}: {difference}"))?;
        }
        Ok(())
    };
    match (got, want) {
        (Output::None, Want::None) => Ok(()),
        (Output::Logits(got), Want::Logits(_)) => same_rows(got, logits),
        (Output::Hidden(got), Want::Hidden(_)) => same_rows(got, hidden_states),
        (Output::Tokens(got), Want::Argmax(_)) => {
            let want: Vec<u32> = logits[positions.clone()].iter().map(|row| highest(row)).collect();
            if got == want { Ok(()) } else { Err(format!("positions {positions:?}: {got:?}, not {want:?}")) }
        }
        (got, want) => Err(format!("{got:?} for {want:?}")),
    }
}

/// The index of the highest logit, of equal ones the first.
fn highest(row: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
    (0..row.len()).reduce(better).expect("a vocabulary") as u32
}

/// A sequence with pages.
struct Active {
    seq: usize,
    /// Tokens whose K and V are in the pages.
    done: usize,
    block_table: Vec<u32>,
    /// Takes part in the step that is being drawn.
    in_step: bool,
}

/// Draws the steps.
struct Schedule<'a> {
    sequences: &'a [Vec<u32>],
    conditions: &'a Conditions,
    rng: Rng,
    free: Vec<u32>,
    waiting: Vec<usize>,
    /// In the order in which they came. Whoever lacks a page takes those of the youngest, so that the oldest gets on.
    active: Vec<Active>,
    /// How often a sequence may yet lose its pages for no reason.
    whims: usize,
}

/// The sequence and the positions of each part of a step.
type Parts = Vec<(usize, Range<usize>)>;

impl<'a> Schedule<'a> {
    fn new(
        sequences: &'a [Vec<u32>],
        waiting: Vec<usize>,
        num_pages: usize,
        conditions: &'a Conditions,
    ) -> Self {
        let rng = Rng::new(conditions.seed);
        let free = (0..num_pages as u32).collect();
        Self { sequences, conditions, rng, free, waiting, active: Vec::new(), whims: 3 }
    }

    /// Fills `batch` with the next step; `None` when all have run.
    fn next_step(&mut self, batch: &mut Batch) -> Option<Parts> {
        batch.clear();
        self.retire();
        self.admit();
        let mut parts = Parts::new();
        let mut order: Vec<usize> = (0..self.active.len()).collect();
        self.rng.shuffle(&mut order);
        for idx in order {
            // A sequence may have lost its pages to one asked before it.
            if idx < self.active.len() && self.rng.below(4) > 0 {
                self.push(idx, batch, &mut parts);
            }
        }
        if batch.is_empty() && !self.active.is_empty() {
            self.push(0, batch, &mut parts);
            assert!(!batch.is_empty(), "the pool has pages for any one sequence");
        }
        (!batch.is_empty()).then_some(parts)
    }

    fn retire(&mut self) {
        for active in &mut self.active {
            active.in_step = false;
            if active.done == self.sequences[active.seq].len() {
                self.free.append(&mut active.block_table);
            }
        }
        self.active.retain(|active| active.done < self.sequences[active.seq].len());
        if self.whims > 0 && !self.active.is_empty() && self.rng.below(8) == 0 {
            self.whims -= 1;
            let victim = self.rng.below(self.active.len() as u32) as usize;
            self.preempt(victim);
        }
    }

    fn admit(&mut self) {
        self.rng.shuffle(&mut self.free);
        self.rng.shuffle(&mut self.waiting);
        while self.active.is_empty() || self.rng.below(3) > 0 {
            let Some(seq) = self.waiting.pop() else { return };
            self.active.push(Active { seq, done: 0, block_table: Vec::new(), in_step: false });
        }
    }

    fn preempt(&mut self, idx: usize) {
        let Active { seq, block_table, .. } = self.active.remove(idx);
        self.free.extend(block_table);
        self.waiting.push(seq);
    }

    /// Adds a chunk of an active sequence to the step, if the step has room and there are pages for it.
    fn push(&mut self, idx: usize, batch: &mut Batch, parts: &mut Parts) {
        let Active { seq, done, .. } = self.active[idx];
        let tokens = &self.sequences[seq];
        let budget = self.conditions.max_tokens - batch.num_tokens();
        let most = (tokens.len() - done).min(self.conditions.max_chunk).min(budget);
        if most == 0 || batch.num_seqs() == self.conditions.max_seqs {
            return;
        }
        let count = 1 + self.rng.below(most as u32) as usize;
        let num_pages = (done + count).div_ceil(self.conditions.page_size);
        while self.active[idx].block_table.len() < num_pages {
            let youngest = self.active.len() - 1;
            match self.free.pop() {
                Some(page) => self.active[idx].block_table.push(page),
                None if youngest == idx || self.active[youngest].in_step => return,
                None => self.preempt(youngest),
            }
        }
        let last_n = Rows::LastN(1 + self.rng.below(count as u32) as usize);
        let want = match self.rng.below(9) {
            0 | 1 if done + count < tokens.len() => Want::None,
            2 => Want::Logits(Rows::All),
            3 => Want::Hidden(Rows::Last),
            4 => Want::Hidden(Rows::All),
            5 => Want::Argmax(Rows::Last),
            6 => Want::Argmax(last_n),
            7 => Want::Logits(last_n),
            _ => Want::Logits(Rows::Last),
        };
        let active = &mut self.active[idx];
        batch.push(&tokens[done..done + count], done, &active.block_table, want);
        (active.done, active.in_step) = (done + count, true);
        parts.push((seq, done..done + count));
    }
}

/// All numerics of a model, `cases` random conditions each.
fn check_model(name: &'static str, lengths: &[usize], cases: u32) {
    let model = test_model(name);
    let sequences = sequences(&model, lengths);
    for numerics in Numerics::all() {
        let backend = |threads| numerics.cpu_backend(threads);
        let want = alone(backend(1), &model, numerics, &sequences);
        for_random(cases, conditions(), |conditions| {
            check(backend(conditions.threads), &model, numerics, (&sequences, &want), &conditions)
        });
    }
}

/// Around the tokens that a matrix tile serves at a time, and beyond the 64 positions that attention sums at a time.
const LENGTHS: [usize; 5] = [1, 2, 9, 33, 70];

#[test]
fn float_models() {
    for name in ["f32", "f16"] {
        check_model(name, &LENGTHS, 1);
    }
    check_model("odd_widths", &[1, 17, 64, 65, 140], 2);
}

#[test]
fn quantized_models() {
    for name in ["q8_0", "mix_q4_k_m", "q3_k", "iq4_xs", "everything_q8_0"] {
        check_model(name, &LENGTHS, 1);
    }
}

#[test]
fn demo_model() {
    check_model("demo", &[1, 18, 70], 1);
}
