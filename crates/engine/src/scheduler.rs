//! Which tokens of which sequences run in the next step.
//!
//! Sequences run in the order of their arrival, and nothing overtakes: those that run are always older than those that
//! wait. A step takes, while the token budget lasts,
//!
//! 1. the last token of every running sequence that is about to generate (a decode),
//! 2. a chunk of every running sequence that has more tokens to run than that (its prompt, or all its tokens after a
//!    preemption),
//! 3. a first chunk of waiting sequences, oldest first, as long as there are pages for all their tokens.
//!
//! When a decode needs a page and none is free, the youngest running sequence is preempted: it gives its pages back and
//! waits at the front. So the oldest can always go on, and as it fits the pool alone, which is checked at submission, every
//! sequence ends. A decode that is itself the youngest keeps its pages and sits the step out instead.
//!
//! The budget is at least the number of sequences that may run, so decodes never exhaust it while a prompt is incomplete.

use std::collections::VecDeque;

use model::{Batch, Logits};

use crate::block_manager::BlockManager;
use crate::error::EngineError;
use crate::sequence::Sequence;

/// The limits of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchedulerLimits {
    /// Most sequences that run at a time; at most `token_budget`.
    pub max_num_seqs: usize,
    /// Most tokens of a step.
    pub token_budget: usize,
    /// Most tokens of one sequence in a step, at least 1.
    pub max_chunk: usize,
}

/// The sequences, and the pages they share.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: SchedulerLimits,
    blocks: BlockManager,
    /// Those with pages, in the order of arrival.
    running: Vec<Sequence>,
    /// Those without, in the order of arrival; all are younger than those in `running`.
    waiting: VecDeque<Sequence>,
    /// What the current step runs, in the order of its batch.
    scheduled: Vec<Scheduled>,
    num_arrived: u64,
    num_preemptions: u64,
}

/// A sequence's part in a step.
#[derive(Debug, Clone, Copy)]
struct Scheduled {
    /// Index in `running`.
    seq_idx: usize,
    num_tokens: usize,
}

impl Scheduler {
    pub fn new(limits: SchedulerLimits, blocks: BlockManager) -> Self {
        debug_assert!(limits.max_chunk > 0 && limits.max_num_seqs <= limits.token_budget);
        Self {
            limits,
            blocks,
            running: Vec::with_capacity(limits.max_num_seqs),
            waiting: VecDeque::new(),
            scheduled: Vec::with_capacity(limits.max_num_seqs),
            num_arrived: 0,
            num_preemptions: 0,
        }
    }

    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn num_preemptions(&self) -> u64 {
        self.num_preemptions
    }

    pub fn num_used_pages(&self) -> usize {
        self.blocks.num_used_pages()
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Takes in a new sequence, which must fit the pool alone.
    pub fn add(&mut self, mut seq: Sequence) {
        seq.id = self.num_arrived;
        self.num_arrived += 1;
        self.waiting.push_back(seq);
    }

    /// Drops the sequences whose events nobody wants any more.
    pub fn cancel_closed(&mut self) {
        self.waiting.retain(|seq| !seq.events.is_closed());
        self.remove_running(|seq| seq.events.is_closed());
    }

    /// Plans the next step into `batch`, which is empty afterwards only if no sequence is left.
    pub fn schedule(&mut self, batch: &mut Batch) {
        batch.clear();
        self.scheduled.clear();
        self.schedule_decodes(batch);
        self.schedule_chunks(batch);
        self.admit_waiting(batch);
        assert!(!batch.is_empty() || self.is_idle(), "no sequence can go on");
    }

    /// Takes note that the planned step has run. Of every sequence all of whose tokens have now run, `advance` is given
    /// the index of its row of logits; it appends the next token or ends the sequence's events.
    pub fn commit(&mut self, mut advance: impl FnMut(usize, &mut Sequence)) {
        let mut row_idx = 0;
        for &Scheduled { seq_idx, num_tokens } in &self.scheduled {
            let seq = &mut self.running[seq_idx];
            seq.num_cached_tokens += num_tokens;
            if seq.num_pending_tokens() == 0 {
                advance(row_idx, seq);
                row_idx += 1;
            }
        }
        self.remove_running(|seq| seq.events.has_ended());
    }

    /// Ends every running sequence with `error`: what their pages hold cannot be trusted.
    pub fn fail_running(&mut self, error: &EngineError) {
        self.remove_running(|seq| {
            seq.events.fail(error.clone());
            true
        });
    }

    /// Checks that every page is in one place and that the sequences are where and in the order they should be.
    pub fn check_integrity(&self) -> Result<(), String> {
        self.blocks.check_integrity(self.running.iter().chain(&self.waiting))?;
        if self.running.len() > self.limits.max_num_seqs {
            return Err(format!(
                "{} sequences run, more than {}",
                self.running.len(),
                self.limits.max_num_seqs
            ));
        }
        if let Some(seq) = self.waiting.iter().find(|seq| !seq.block_table.is_empty()) {
            return Err(format!("sequence {} waits and has pages", seq.id));
        }
        let ids = self.running.iter().chain(&self.waiting).map(|seq| seq.id);
        if ids.is_sorted() { Ok(()) } else { Err("a sequence has overtaken another".to_owned()) }
    }

    fn schedule_decodes(&mut self, batch: &mut Batch) {
        let mut seq_idx = 0;
        while seq_idx < self.running.len() {
            if self.running[seq_idx].num_pending_tokens() == 1 && self.make_room(seq_idx) {
                self.push(seq_idx, 1, batch);
            }
            seq_idx += 1;
        }
    }

    /// Gives a running sequence the page that its last token needs, if it needs one, at the expense of younger sequences.
    /// Those that the step has already taken are all older.
    fn make_room(&mut self, seq_idx: usize) -> bool {
        while !self.blocks.append(&mut self.running[seq_idx]) {
            if seq_idx + 1 == self.running.len() {
                return false;
            }
            self.preempt_youngest();
        }
        true
    }

    fn preempt_youngest(&mut self) {
        let Some(mut seq) = self.running.pop() else { return };
        tracing::debug!(id = seq.id, tokens = seq.token_ids.len(), "preempted");
        self.blocks.free(&mut seq);
        self.waiting.push_front(seq);
        self.num_preemptions += 1;
    }

    /// Sequences with more than one token to run were given all their pages when they were admitted.
    fn schedule_chunks(&mut self, batch: &mut Batch) {
        for seq_idx in 0..self.running.len() {
            if self.running[seq_idx].num_pending_tokens() > 1 {
                self.push(seq_idx, self.chunk(&self.running[seq_idx], batch), batch);
            }
        }
    }

    fn admit_waiting(&mut self, batch: &mut Batch) {
        while self.running.len() < self.limits.max_num_seqs && batch.num_tokens() < self.limits.token_budget {
            if !self.may_admit_next() {
                return;
            }
            let Some(mut seq) = self.waiting.pop_front() else { return };
            let allocated = self.blocks.allocate(&mut seq);
            assert!(allocated, "sequence {} was admitted without pages", seq.id);
            let num_tokens = self.chunk(&seq, batch);
            self.running.push(seq);
            self.push(self.running.len() - 1, num_tokens, batch);
        }
    }

    /// Whether there are pages for the oldest waiting sequence and, beside them, one for each running sequence that may
    /// still grow: without that reserve, what is admitted would soon be preempted.
    fn may_admit_next(&self) -> bool {
        let Some(seq) = self.waiting.front() else { return false };
        let may_grow =
            |seq: &&Sequence| self.blocks.pages_for(seq.max_cached_tokens()) > seq.block_table.len();
        let reserve = self.running.iter().filter(may_grow).count();
        self.blocks.pages_for(seq.token_ids.len()) + reserve <= self.blocks.num_free_pages()
    }

    /// Tokens of a sequence that the step may still take.
    fn chunk(&self, seq: &Sequence, batch: &Batch) -> usize {
        let budget = self.limits.token_budget - batch.num_tokens();
        seq.num_pending_tokens().min(self.limits.max_chunk).min(budget)
    }

    /// Adds a running sequence's next tokens to the step, unless they are none.
    fn push(&mut self, seq_idx: usize, num_tokens: usize, batch: &mut Batch) {
        if num_tokens == 0 {
            return;
        }
        let seq = &self.running[seq_idx];
        let start = seq.num_cached_tokens;
        let logits = if num_tokens == seq.num_pending_tokens() { Logits::Last } else { Logits::Skip };
        batch.push(&seq.token_ids[start..start + num_tokens], start, &seq.block_table, logits);
        self.scheduled.push(Scheduled { seq_idx, num_tokens });
    }

    /// Removes the running sequences of which `ends` is true and takes back their pages.
    fn remove_running(&mut self, mut ends: impl FnMut(&mut Sequence) -> bool) {
        let blocks = &mut self.blocks;
        self.running.retain_mut(|seq| {
            let ends = ends(seq);
            if ends {
                blocks.free(seq);
            }
            !ends
        });
    }
}
