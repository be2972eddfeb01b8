//! The engine: sequences in, events out, one step at a time.
//!
//! A step cancels what nobody wants any more, plans a batch, runs it and gives every sequence that is up to date its next
//! token. [`Engine::start`] repeats it on a thread of its own for as long as there is work.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use model::{Batch, Runner, RunnerSpec};
use tokenizer::Tokenizer;

use crate::admission::Admission;
use crate::block_manager::BlockManager;
use crate::choosing::Choosing;
use crate::error::{EngineError, Result};
use crate::handle::{Command, EngineHandle};
use crate::options::EngineOptions;
use crate::pacing::{Pacer, Work};
use crate::policies::Policies;
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
        let spec = runner.spec();
        let engine = Self::new(runner, options, Policies::default())?;
        let stats = Arc::new(Mutex::new(engine.stats));
        let (commands, receiver) = mpsc::channel();
        let published = Arc::clone(&stats);
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || engine.run(&receiver, &published))
            .map_err(|error| EngineError::Spawn(error.to_string()))?;
        Ok(EngineHandle::new(Admission::new(spec, tokenizer), commands, stats, thread))
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
        })
    }

    /// Takes commands and steps until it is told to stop.
    fn run(mut self, commands: &Receiver<Command>, published: &Mutex<EngineStats>) {
        loop {
            // A thread with nothing to do waits for a command; one with work only looks for any.
            let command = if self.scheduler.is_idle() {
                commands.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                commands.try_recv()
            };
            match command {
                Ok(Command::Submit(seqs)) => seqs.into_iter().for_each(|seq| self.add(seq)),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    self.step();
                    *published.lock().unwrap_or_else(PoisonError::into_inner) = self.stats();
                }
            }
        }
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
        self.scheduler.report(&mut self.stats);
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
        let output = match self.runner.run(&self.batch) {
            Ok(output) => output,
            Err(error) => {
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
