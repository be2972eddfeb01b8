//! Running steps on the ranks of a group: to its caller a runner like that of one device.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{
    AttentionMode, Backend, Batch, BatchLimits, Decoder, Error, Layout, ModelRunner, Result, RunError,
    RunState, Runner, RunnerSpec, StepOutput, StepSize,
};

/// A model on a device, or in parts on the ranks of a group.
pub struct RankedModel<B: Backend> {
    /// In the order of the ranks.
    ranks: Vec<(Arc<B>, Arc<Decoder<B>>)>,
    /// Held during a step: those of several runners take turns, as all ranks must gather in the same order.
    turn: Arc<Mutex<()>>,
}

impl<B: Backend> RankedModel<B> {
    /// The parts of a model, in the order of the ranks.
    ///
    /// # Panics
    /// When they are not those of all ranks of a group.
    pub fn new(ranks: Vec<(Arc<B>, Arc<Decoder<B>>)>) -> Self {
        for (idx, (backend, _)) in ranks.iter().enumerate() {
            let rank = backend.rank();
            assert_eq!((rank.idx(), rank.count()), (idx, ranks.len()), "the ranks of a group");
        }
        assert!(!ranks.is_empty(), "a model on no device");
        Self { ranks, turn: Arc::default() }
    }

    /// The ranks, in order.
    pub fn ranks(&self) -> &[(Arc<B>, Arc<Decoder<B>>)] {
        &self.ranks
    }

    /// Makes the KV cache and the buffers, of each rank its part, for steps up to `limits`.
    ///
    /// # Errors
    /// When a device cannot hold them, or a thread cannot be started.
    pub fn runner(&self, limits: BatchLimits, attention: AttentionMode) -> Result<Box<dyn Runner>> {
        let page_size = self.ranks[0].1.config().page_size;
        self.runner_with_page_size(limits, page_size, attention)
    }

    /// As [`runner`](Self::runner), with pages of another size than the configuration's.
    ///
    /// # Errors
    /// As `runner`.
    pub fn runner_with_page_size(
        &self,
        limits: BatchLimits,
        page_size: usize,
        attention: AttentionMode,
    ) -> Result<Box<dyn Runner>> {
        let runner = |(backend, decoder): &(Arc<B>, Arc<Decoder<B>>)| {
            ModelRunner::with_page_size(
                Arc::clone(backend),
                Arc::clone(decoder),
                limits,
                page_size,
                attention,
            )
        };
        let mut runners = self.ranks.iter().map(runner).collect::<Result<Vec<_>>>()?.into_iter();
        let first = runners.next().expect("there is a rank");
        if self.ranks.len() == 1 {
            return Ok(Box::new(first));
        }
        Ok(Box::new(RankedRunner {
            backend: Arc::clone(&self.ranks[0].0),
            first,
            others: runners.map(Other::start).collect::<Result<_>>()?,
            turn: Arc::clone(&self.turn),
        }))
    }
}

/// Steps whose gathers are timed, after as many that are not.
const TIMED: u32 = 10;

impl<B: Backend> RankedModel<B> {
    /// The time that the gathers of a step of so many tokens take alone, one after the other, if `head_rows` of the tokens yield logits.
    /// None on one device.
    ///
    /// # Errors
    /// When a device cannot hold the rows, or fails.
    pub fn time_gathers(&self, tokens: usize, head_rows: usize) -> Result<Option<Duration>> {
        if self.ranks.len() == 1 {
            return Ok(None);
        }
        let limits = BatchLimits {
            max_tokens: tokens,
            max_seqs: 1,
            max_logit_rows: head_rows,
            max_blocks: 1,
            num_pages: 1,
        };
        let state = |(backend, decoder): &(Arc<B>, Arc<Decoder<B>>)| {
            let layout = Layout::of_rank(decoder.config(), limits, AttentionMode::Fused, backend.rank())?;
            RunState::new(&**backend, &layout)
        };
        let mut states = self.ranks.iter().map(state).collect::<Result<Vec<_>>>()?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let size = StepSize { tokens, logit_rows: head_rows, ..StepSize::default() };
        let mut run = || -> Result<Duration> {
            let started = Instant::now();
            thread::scope(|scope| {
                let ranks = self.ranks.iter().zip(&mut states);
                let start = ranks.map(|((backend, decoder), state)| {
                    scope.spawn(move || gather(&**backend, decoder, size, state))
                });
                let threads: Vec<_> = start.collect();
                let joined = threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
                joined.collect::<Result<()>>()
            })?;
            Ok(started.elapsed())
        };
        run()?;
        Ok(Some(run()? / TIMED))
    }
}

/// The gathers of some steps on a rank. Others do not wait for it if it fails.
fn gather<B: Backend>(
    backend: &B,
    decoder: &Decoder<B>,
    size: StepSize,
    state: &mut RunState<B>,
) -> Result<()> {
    for _ in 0..TIMED {
        decoder.gather(backend, size, state);
    }
    backend.read_into(&mut []).inspect_err(|error| backend.leave_group(&error.to_string()))
}

/// Runs each step on all ranks: on the first, whose results count, in the caller's thread, on each other in a thread of its own.
struct RankedRunner<B: Backend> {
    backend: Arc<B>,
    first: ModelRunner<B>,
    others: Vec<Other>,
    turn: Arc<Mutex<()>>,
}

/// A rank's thread. It ends when this is dropped.
struct Other {
    /// The copy of the step's batch, while the rank does not have it.
    batch: Option<Batch>,
    steps: Option<SyncSender<Batch>>,
    done: Receiver<(Batch, std::result::Result<(), RunError>)>,
    thread: Option<JoinHandle<()>>,
}

impl<B: Backend> Runner for RankedRunner<B> {
    fn spec(&self) -> RunnerSpec {
        self.first.spec()
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> std::result::Result<StepOutput<'a>, RunError> {
        let Self { backend, first, others, turn } = self;
        let _turn: MutexGuard<'_, ()> = turn.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter_mut().for_each(|other| other.begin(batch));
        let outcome = catch_unwind(AssertUnwindSafe(move || {
            let first = first;
            first.run(batch)
        }));
        match &outcome {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => backend.leave_group(&error.to_string()),
            Err(panic) => backend.leave_group(&message(&**panic)),
        }
        // Whatever has happened, no rank is in the step any more when this returns.
        let mut failure = None;
        for other in others {
            if let Err(error) = other.finish() {
                failure.get_or_insert(error);
            }
        }
        let outcome = outcome.unwrap_or_else(|panic| resume_unwind(panic));
        match failure {
            None => outcome,
            // The group knows which rank was the first to fail.
            Some(failure) => Err(backend.read_into(&mut []).err().map_or(failure, RunError::from)),
        }
    }
}

impl Other {
    fn start<B: Backend>(mut runner: ModelRunner<B>) -> Result<Self> {
        let (steps, next_steps) = sync_channel::<Batch>(1);
        let (report, done) = sync_channel(1);
        let spec = runner.spec();
        let name = format!("rustorch-rank-{}", runner.backend().rank().idx());
        let work = move || {
            for batch in next_steps {
                let outcome = catch_unwind(AssertUnwindSafe(|| runner.compute(&batch)));
                let outcome = outcome.unwrap_or_else(|panic| Err(RunError::new(message(&*panic))));
                if let Err(error) = &outcome {
                    runner.backend().leave_group(&error.to_string());
                }
                if report.send((batch, outcome)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(name).spawn(work);
        let thread = thread.map_err(|error| Error::Device(format!("starting threads: {error}")))?;
        let batch = Some(Batch::new(spec.limits, spec.page_size));
        Ok(Self { batch, steps: Some(steps), done, thread: Some(thread) })
    }

    fn begin(&mut self, batch: &Batch) {
        let mut copy = self.batch.take().expect("the last step is finished");
        copy.copy_from(batch);
        let steps = self.steps.as_ref().expect("only a drop closes it");
        steps.send(copy).expect("the thread ends when this is dropped");
    }

    fn finish(&mut self) -> std::result::Result<(), RunError> {
        let (batch, outcome) = self.done.recv().expect("the thread ends when this is dropped");
        self.batch = Some(batch);
        outcome
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            // It catches the panics of steps, so there is nothing to report.
            let _ = thread.join();
        }
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("no message"))
}
