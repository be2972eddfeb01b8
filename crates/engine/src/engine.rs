//! The engine: sequences in, events out, one step at a time.
//!
//! A step cancels what nobody wants any more, plans a batch, runs it and gives every sequence that is up to date its next
//! token. [`Engine::start`] repeats it on a thread of its own for as long as there is work.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use model::{Batch, Runner, RunnerSpec};
use tokenizer::Tokenizer;

use crate::admission::Admission;
use crate::block_manager::BlockManager;
use crate::choosing::Choosing;
use crate::error::{EngineError, Result};
use crate::handle::{Command, EngineHandle, HandleParts};
use crate::options::EngineOptions;
use crate::pacing::{Pacer, Work};
use crate::policies::Policies;
use crate::replicas::{MAX_ENGINES, Place, Replicas, Spare};
use crate::sampler::Sampler;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::stats::EngineStats;

/// Generates for many sequences at a time with one model.
#[derive(Debug)]
pub struct Engine<R> {
    runner: R,
    scheduler: Scheduler,
    pacer: Pacer,
    sampler: Sampler,
    choosing: Choosing,
    batch: Batch,
    stats: EngineStats,
    /// Its place among the engines of its handle. None without a thread.
    place: Option<Place>,
    life: Life,
}

/// What an engine can still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    /// Its runner is in a step. If that fails, all sequences are as they were before.
    InRunner,
    /// It has failed, and passes on to others what it is sent.
    Retired,
}

impl<R: Runner> Engine<R> {
    /// Starts an engine on a thread of its own. It stops when the last clone of the handle is dropped.
    ///
    /// Without a tokenizer, events have no text and nothing but `stop_token_ids` and `max_tokens` ends a sequence.
    ///
    /// # Errors
    /// [`EngineError::InvalidOption`] if the options contradict the runner's limits; [`EngineError::Spawn`] if there is
    /// no thread to be had.
    pub fn start(
        runner: R,
        tokenizer: Option<Arc<Tokenizer>>,
        options: EngineOptions,
    ) -> Result<EngineHandle> {
        Self::start_replicas([(String::new(), runner)], tokenizer, options)
    }

    /// Starts an engine for each runner, all behind one handle. The runners have the same model, each on a device of its own, whose
    /// name comes with it. Results are those of one of them: which one runs a request never shows.
    ///
    /// The options are those of each. An engine whose runner fails or panics gives its requests, as far as they have come, to the
    /// others and runs no more, as long as there are others.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`EngineError::InvalidOption`] if there are no runners or more than 64, or if they differ in anything
    /// but their KV pages.
    pub fn start_replicas(
        runners: impl IntoIterator<Item = (String, R)>,
        tokenizer: Option<Arc<Tokenizer>>,
        options: EngineOptions,
    ) -> Result<EngineHandle> {
        let (devices, runners): (Vec<String>, Vec<R>) = runners.into_iter().unzip();
        let spec = common_spec(&runners)?;
        let engines = runners.into_iter().map(|runner| Self::new(runner, options, Policies::default()));
        let engines = engines.collect::<Result<Vec<Self>>>()?;
        let (senders, receivers): (Vec<_>, Vec<_>) = engines.iter().map(|_| mpsc::channel()).unzip();
        let states = engines.iter().map(|engine| (engine.stats, engine.scheduler.spare()));
        let links = devices.into_iter().zip(senders).zip(states);
        let links = links.map(|((device, sender), (stats, spare))| (device, sender, stats, spare));
        let replicas = Arc::new(Replicas::new(links, options.prefix_cache));
        // Dropped, it ends the threads that have started.
        let mut handle = HandleParts::new(Admission::new(spec, tokenizer), Arc::clone(&replicas));
        for (idx, (mut engine, receiver)) in engines.into_iter().zip(receivers).enumerate() {
            engine.place = Some(Place { replicas: Arc::clone(&replicas), idx });
            let thread = thread::Builder::new()
                .name("engine".to_owned())
                .spawn(move || engine.run(&receiver))
                .map_err(|error| EngineError::Spawn(error.to_string()))?;
            handle.add_thread(thread);
        }
        Ok(handle.into())
    }

    pub(crate) fn new(runner: R, options: EngineOptions, policies: Policies) -> Result<Self> {
        let RunnerSpec { limits, page_size, .. } = runner.spec();
        let num_pages = limits.num_pages;
        let scheduler_limits = options.resolve(&runner.spec())?;
        let max_num_seqs = scheduler_limits.max_num_seqs;
        Ok(Self {
            runner,
            scheduler: Scheduler::new(
                scheduler_limits,
                BlockManager::new(page_size, num_pages, options.prefix_cache, policies.cache_rules),
                policies.drafter,
            ),
            pacer: Pacer::new(options.itl_target, policies.clock),
            sampler: Sampler::default(),
            choosing: policies.choosing,
            batch: Batch::new(limits, page_size),
            stats: EngineStats { num_pages, max_num_seqs, ..EngineStats::default() },
            place: None,
            life: Life::Running,
        })
    }

    /// Takes commands and steps until it is told to stop.
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            self.publish();
            // A thread with nothing to do waits for a command; one with work only looks for any.
            let command = if self.scheduler.is_idle() {
                commands.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                commands.try_recv()
            };
            match command {
                Ok(Command::Submit(seqs)) => self.take_in(seqs),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    self.step_or_retire();
                    self.share();
                }
            }
        }
    }

    fn take_in(&mut self, seqs: Vec<Sequence>) {
        match &self.place {
            Some(place) if self.life == Life::Retired => place.pass_on(seqs),
            _ => seqs.into_iter().for_each(|seq| self.add(seq)),
        }
    }

    /// Runs a step. If it panics, the engine retires; the last one's thread ends by the panic.
    fn step_or_retire(&mut self) {
        // Of an engine that has panicked, nothing is used again but sequences that it had not begun to change.
        let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| self.step())) else { return };
        if self.life != Life::InRunner {
            self.scheduler.abandon_running();
        }
        if !self.retire(&"its thread panicked") {
            panic::resume_unwind(panic);
        }
        self.report();
    }

    /// Gives all sequences to other engines and runs none any more. False if there are no others.
    fn retire(&mut self, error: &dyn fmt::Display) -> bool {
        let Some(place) = self.place.clone().filter(Place::retire) else { return false };
        self.life = Life::Retired;
        let seqs = self.scheduler.take_all();
        let (device, sequences) = (place.device(), seqs.len());
        tracing::error!(%error, device, sequences, "an engine has failed; others go on with its sequences");
        place.pass_on(seqs);
        true
    }

    /// Gives what waits to engines that have room.
    fn share(&mut self) {
        let Some(place) = &self.place else { return };
        if self.scheduler.num_waiting() > 0 {
            place.give(|priority, elsewhere| self.scheduler.take_surplus(priority, elsewhere));
        }
    }

    fn publish(&self) {
        let Some(place) = &self.place else { return };
        let spare = if self.life == Life::Retired { Spare::default() } else { self.scheduler.spare() };
        place.publish(self.stats(), spare);
    }

    pub(crate) fn add(&mut self, seq: Sequence) {
        self.scheduler.add(seq);
    }

    /// Runs one step, if there is a sequence that wants one.
    pub(crate) fn step(&mut self) {
        self.stats.cancelled += self.scheduler.cancel_closed() as u64;
        if !self.scheduler.is_idle() {
            let began = self.pacer.now();
            self.scheduler.schedule(&mut self.batch, &self.pacer);
            if self.run_batch() {
                self.pacer.learn(Work::of(&self.batch), began);
            }
        }
        debug_assert_eq!(self.check_integrity(), Ok(()));
        self.report();
    }

    fn report(&mut self) {
        self.scheduler.report(&mut self.stats);
        if self.life == Life::Retired {
            (self.stats.max_num_seqs, self.stats.num_pages) = (0, 0);
            (self.stats.used_pages, self.stats.cached_pages) = (0, 0);
        }
    }

    pub(crate) fn stats(&self) -> EngineStats {
        self.stats
    }

    pub(crate) fn check_integrity(&self) -> std::result::Result<(), String> {
        self.scheduler.check_integrity()
    }

    #[cfg(test)]
    pub(crate) fn pending_prompts(&self) -> Vec<(u64, usize)> {
        self.scheduler.pending_prompts()
    }

    /// Whether the step has run.
    fn run_batch(&mut self) -> bool {
        self.life = Life::InRunner;
        let output = self.runner.run(&self.batch);
        self.life = Life::Running;
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                if self.retire(&error) {
                    return false;
                }
                tracing::error!(%error, sequences = self.scheduler.num_running(), "step failed");
                self.stats.failed += self.scheduler.fail_running(&EngineError::Run(error)) as u64;
                return false;
            }
        };
        if self.batch.size().logit_rows > 1 {
            let rows = self.scheduler.wanting().map(|(seq, seq_idx)| (seq, output.of(seq_idx)));
            self.choosing.choose(rows.collect());
        }
        let (sampler, stats) = (&mut self.sampler, &mut self.stats);
        self.scheduler.commit(|seq, num_tokens, seq_idx| {
            stats.generated_tokens += seq.advance(num_tokens, output.of(seq_idx), sampler) as u64;
            if let Some(ending) = seq.events.ending() {
                stats.count(ending);
            }
        });
        let size = self.batch.size();
        self.stats.steps += 1;
        self.stats.tokens += size.tokens as u64;
        true
    }
}

/// What requests are judged by if any of these may serve them: the runners' sizes, with the fewest KV pages.
fn common_spec<R: Runner>(runners: &[R]) -> Result<RunnerSpec> {
    let check = |name, expected: String, found| Err(EngineError::InvalidOption { name, expected, found });
    let first = match runners {
        [first, ..] if runners.len() <= MAX_ENGINES => first.spec(),
        _ => return check("runners", format!("1 to {MAX_ENGINES}"), runners.len()),
    };
    let mut common = first;
    for spec in runners.iter().map(Runner::spec) {
        common.limits.num_pages = common.limits.num_pages.min(spec.limits.num_pages);
        let sizes = |spec: &RunnerSpec| {
            let RunnerSpec { page_size, vocab_size, hidden_size, max_seq_len, .. } = *spec;
            [
                ("page_size", page_size),
                ("vocab_size", vocab_size),
                ("hidden_size", hidden_size),
                ("max_seq_len", max_seq_len),
            ]
        };
        for ((name, expected), (_, found)) in sizes(&first).into_iter().zip(sizes(&spec)) {
            if expected != found {
                return check(name, format!("{expected}, as the first runner has"), found);
            }
        }
    }
    Ok(common)
}
