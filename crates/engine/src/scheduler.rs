//! Which tokens of which sequences run in the next step.
//!
//! Sequences run by priority and, within one, by turn, and nothing overtakes: of one priority, those that run always come before
//! those that wait. A client's turns follow one another (`turns.rs`), so that clients take turns, by their weights, and the sequences
//! of one client begin in the order of their arrival.
//! A step takes, while the token budget lasts, of the normal sequences and then of the low ones,
//!
//! 1. the last token of every running sequence that is about to generate (a decode);
//! 2. chunks of the running sequences that have more tokens to run than that (a prompt, or all tokens after a preemption),
//!    as `prompts.rs` divides the rest of the budget and the time of the step.
//!
//! Between the two, waiting sequences begin to run, the first of them first, as long as there are places, and pages for all their
//! tokens. One that begins like a running sequence waits until that one has computed what they share.
//!
//! When a decode needs a page and none is free, the last running sequence is preempted, which is the youngest low one or, if
//! there is none, the youngest: it gives its pages back and waits at the front of its queue. So the first can always go on,
//! and as it fits the pool alone, which is checked at submission, every sequence ends. A decode that is itself the last
//! keeps its pages and takes no part in the step. A waiting normal sequence that lacks pages or a place preempts low ones;
//! none of them can have a part in the step yet, as normal ones are asked first.
//!
//! A decode may bring drafted tokens, which the same step checks: as many as the budget, the rows of the LM head and the free
//! pages allow without a preemption. What is wrong of them is taken back at the commit, before anything is made findable.
//!
//! The budget is at least the number of sequences that may run, so decodes of normal sequences never exhaust it while a
//! prompt is incomplete.

use std::collections::VecDeque;
use std::ops::Range;

use model::{Batch, Want};

use crate::block_manager::BlockManager;
use crate::error::EngineError;
use crate::pacing::{Allowance, Pacer, Work};
use crate::policies::Drafter;
use crate::prompts::{self, Prompt, Room};
use crate::replicas::Spare;
use crate::request::Priority;
use crate::sequence::Sequence;
use crate::stats::EngineStats;
use crate::turns::Turns;

/// The limits of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchedulerLimits {
    /// Most sequences that run at a time; at most `token_budget`.
    pub max_num_seqs: usize,
    /// Most tokens of a step.
    pub token_budget: usize,
    /// Most tokens of one sequence in a step, at least 1.
    pub max_chunk: usize,
    /// Most rows of a step that yield logits or a token; at least `max_num_seqs`.
    pub max_head_rows: usize,
    /// Whether the device draws tokens.
    pub draws: bool,
}

/// The sequences, and the pages they share.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: SchedulerLimits,
    blocks: BlockManager,
    drafter: Box<dyn Drafter>,
    /// Those with pages, by [`Sequence::rank`].
    running: Vec<Sequence>,
    /// Those without, normal and low, by [`Sequence::rank`]; all come after those of their priority in `running`.
    waiting: [VecDeque<Sequence>; 2],
    /// Of each priority.
    turns: [Turns; 2],
    /// What the current step runs, in the order of its batch.
    scheduled: Vec<Scheduled>,
    /// The prompts among which a step is divided.
    prompts: Vec<Prompt>,
    /// The tokens of a decode that brings drafts.
    tokens: Vec<u32>,
    num_arrived: u64,
    num_preemptions: u64,
    /// Tokens of prompts that ran.
    num_prompt_tokens: u64,
}

/// A sequence's part in a step.
#[derive(Debug, Clone, Copy)]
struct Scheduled {
    /// Index in `running`.
    seq_idx: usize,
    num_tokens: usize,
    want: Want,
}

const PRIORITIES: [Priority; 2] = [Priority::Normal, Priority::Low];

impl Scheduler {
    pub fn new(limits: SchedulerLimits, blocks: BlockManager, drafter: Box<dyn Drafter>) -> Self {
        debug_assert!(limits.max_chunk > 0 && limits.max_num_seqs <= limits.token_budget);
        Self {
            limits,
            blocks,
            drafter,
            running: Vec::with_capacity(limits.max_num_seqs),
            waiting: [VecDeque::new(), VecDeque::new()],
            turns: Default::default(),
            scheduled: Vec::with_capacity(limits.max_num_seqs),
            prompts: Vec::with_capacity(limits.max_num_seqs),
            tokens: Vec::new(),
            num_arrived: 0,
            num_preemptions: 0,
            num_prompt_tokens: 0,
        }
    }

    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    pub fn num_waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    pub fn is_idle(&self) -> bool {
        self.num_running() + self.num_waiting() == 0
    }

    /// Writes down what the scheduler knows.
    pub fn report(&self, stats: &mut EngineStats) {
        stats.prompt_tokens = self.num_prompt_tokens;
        stats.preemptions = self.num_preemptions;
        stats.running = self.num_running();
        stats.waiting = self.num_waiting();
        self.blocks.report(stats);
    }

    /// Takes in a new sequence, which must fit the pool alone.
    pub fn add(&mut self, mut seq: Sequence) {
        seq.id = self.num_arrived;
        self.num_arrived += 1;
        self.blocks.name_pages(&mut seq);
        let waiting = &mut self.waiting[seq.priority as usize];
        // The turns of a client rise, so its last waiting sequence has the last.
        let last = waiting.iter().rev().find(|waiting| waiting.client.id == seq.client.id);
        seq.turn = self.turns[seq.priority as usize].of_new(seq.client, last);
        let place = waiting.partition_point(|waiting| waiting.rank() < seq.rank());
        waiting.insert(place, seq);
    }

    /// Drops the sequences whose events nobody wants any more, and says how many they were.
    pub fn cancel_closed(&mut self) -> usize {
        let num_waiting = self.num_waiting();
        self.waiting.iter_mut().for_each(|waiting| waiting.retain(|seq| !seq.events.is_closed()));
        let num_cancelled = num_waiting - self.num_waiting();
        num_cancelled + self.remove_running(|seq| seq.events.is_closed())
    }

    /// Plans the next step into `batch`, which is empty afterwards only if no sequence is left.
    pub fn schedule(&mut self, batch: &mut Batch, pacer: &Pacer) {
        batch.clear();
        self.scheduled.clear();
        let mut allowance = pacer.allowance(self.decodes());
        for priority in PRIORITIES {
            self.schedule_decodes(priority, batch);
            let num_running = self.of_priority(priority).end;
            self.admit_waiting(priority, batch);
            self.schedule_prompts(priority, num_running, &mut allowance, batch);
        }
        assert!(!batch.is_empty() || self.is_idle(), "no sequence can go on");
    }

    /// The sequences that want something of the planned step, and their indices in the batch.
    pub fn wanting(&mut self) -> impl Iterator<Item = (&mut Sequence, usize)> {
        let mut running: Vec<Option<&mut Sequence>> = self.running.iter_mut().map(Some).collect();
        let wanting = self.scheduled.iter().enumerate().filter(|(_, scheduled)| scheduled.want != Want::None);
        wanting.filter_map(move |(idx, scheduled)| Some((running[scheduled.seq_idx].take()?, idx)))
    }

    /// Takes note that the planned step has run. Every sequence that wanted something is given to `advance`, with the number
    /// of its tokens that ran and its index in the batch; it takes in what its rows yield or ends the sequence's events.
    pub fn commit(&mut self, mut advance: impl FnMut(&mut Sequence, usize, usize)) {
        for (idx, &Scheduled { seq_idx, num_tokens, want }) in self.scheduled.iter().enumerate() {
            let seq = &mut self.running[seq_idx];
            let num_prompt_tokens = seq.num_prompt_tokens.saturating_sub(seq.num_cached_tokens);
            self.num_prompt_tokens += num_prompt_tokens.min(num_tokens) as u64;
            seq.num_cached_tokens += num_tokens;
            if want != Want::None {
                advance(seq, num_tokens, idx);
                // Of drafted tokens, those behind the first that is wrong are not the sequence's.
                let num_right = seq.num_cached_tokens.min(seq.token_ids.len() - 1);
                if seq.is_generating() && num_right < seq.num_cached_tokens {
                    self.blocks.truncate(seq, num_right);
                }
            }
            self.blocks.publish(seq);
        }
        self.remove_running(|seq| seq.events.has_ended());
    }

    /// Ends every running sequence with `error`, and says how many they were: what their pages hold cannot be trusted.
    pub fn fail_running(&mut self, error: &EngineError) -> usize {
        let is_trusted = self.blocks.trusts_failed_steps();
        if is_trusted {
            self.commit(|_, _, _| {});
        }
        let num_failed = self.remove_running(|seq| {
            seq.events.fail(error.clone());
            true
        });
        if !is_trusted {
            self.blocks.invalidate();
        }
        num_failed
    }

    /// What could begin at once beside the sequences that are here; no sequence of a priority if one of it waits.
    pub fn spare(&self) -> Spare {
        let num_normal = self.of_priority(Priority::Normal).end;
        let [normal, low] = self.waiting.each_ref().map(VecDeque::is_empty);
        let seats =
            |is_free: bool, num_running| if is_free { self.limits.max_num_seqs - num_running } else { 0 };
        Spare {
            seats: [seats(normal, num_normal), seats(normal && low, self.num_running())],
            pages: self.blocks.num_free_pages().saturating_sub(self.num_growing(&self.running)),
        }
    }

    /// Takes out waiting sequences for which there is room elsewhere and not here: those that follow the ones which may soon
    /// begin here.
    pub fn take_surplus(&mut self, priority: Priority, elsewhere: Spare) -> Vec<Sequence> {
        let waiting = &self.waiting[priority as usize];
        if waiting.is_empty() {
            return Vec::new();
        }
        let before: usize = self.waiting[..priority as usize].iter().map(VecDeque::len).sum();
        let num_seats = self.limits.max_num_seqs.saturating_sub(self.of_priority(priority).end + before);
        let mut pages = self.blocks.num_free_pages();
        let take = |pages: &mut usize, needed| pages.checked_sub(needed).map(|left| *pages = left);
        let here = waiting.iter().take(num_seats);
        let num_kept = here.map_while(|seq| take(&mut pages, self.blocks.pages_to_take(seq))).count();
        let mut pages = elsewhere.pages;
        let others = waiting.iter().skip(num_kept).take(elsewhere.seats[priority as usize]);
        let needed = |seq: &Sequence| self.blocks.pages_for(seq.token_ids.len());
        let num_given = others.map_while(|seq| take(&mut pages, needed(seq))).count();
        self.waiting[priority as usize].drain(num_kept..num_kept + num_given).collect()
    }

    /// Takes out all sequences, each as after a preemption.
    pub fn take_all(&mut self) -> Vec<Sequence> {
        self.running.iter_mut().for_each(|seq| self.blocks.free(seq));
        let mut seqs = std::mem::take(&mut self.running);
        seqs.append(&mut self.take_waiting());
        seqs
    }

    /// Takes out all that wait.
    pub fn take_waiting(&mut self) -> Vec<Sequence> {
        self.waiting.iter_mut().flat_map(|waiting| waiting.drain(..)).collect()
    }

    /// Drops the running sequences, whatever state they are in: those that have not ended do now.
    pub fn abandon_running(&mut self) {
        self.running.clear();
    }

    /// Checks that every page is in one place and that the sequences are where and in the order they should be.
    pub fn check_integrity(&self) -> Result<(), String> {
        self.blocks.check_integrity(self.running.iter())?;
        if self.running.len() > self.limits.max_num_seqs {
            return Err(format!(
                "{} sequences run, more than {}",
                self.running.len(),
                self.limits.max_num_seqs
            ));
        }
        if let Some(seq) = self.waiting.iter().flatten().find(|seq| !seq.block_table.is_empty()) {
            return Err(format!("sequence {} waits and has pages", seq.id));
        }
        if !self.running.iter().map(Sequence::rank).is_sorted() {
            return Err("running sequences are not in the order of their rank".to_owned());
        }
        for (priority, waiting) in PRIORITIES.into_iter().zip(&self.waiting) {
            let running = self.running.iter().filter(|seq| seq.priority == priority);
            if !running.chain(waiting).map(Sequence::rank).is_sorted() {
                return Err(format!("a sequence of {priority:?} priority has overtaken another"));
            }
        }
        Ok(())
    }

    /// Where the running sequences of a priority are.
    fn of_priority(&self, priority: Priority) -> Range<usize> {
        let first = |after: Priority| self.running.partition_point(|seq| seq.priority < after);
        match priority {
            Priority::Normal => 0..first(Priority::Low),
            Priority::Low => first(Priority::Low)..self.running.len(),
        }
    }

    /// The work of the sequences that are about to generate.
    fn decodes(&self) -> Work {
        let mut decodes = Work::default();
        let ready = self.running.iter().filter(|seq| seq.num_pending_tokens() == 1);
        ready.for_each(|seq| decodes.add(Work::decode(seq.num_cached_tokens)));
        decodes
    }

    fn schedule_decodes(&mut self, priority: Priority, batch: &mut Batch) {
        let mut seq_idx = self.of_priority(priority).start;
        // The end moves when a sequence is preempted.
        while seq_idx < self.of_priority(priority).end && batch.num_tokens() < self.limits.token_budget {
            if self.running[seq_idx].num_pending_tokens() == 1 && self.append_or_preempt(seq_idx) {
                self.draft(seq_idx, batch);
                self.push(seq_idx, 1 + self.running[seq_idx].drafts.len(), batch);
            }
            seq_idx += 1;
        }
    }

    /// Gives a running sequence the page that its last token needs, if it needs one, and preempts those after it for it. Those
    /// that the step has already taken are all before it. False if there is none left to preempt.
    fn append_or_preempt(&mut self, seq_idx: usize) -> bool {
        let seq = &mut self.running[seq_idx];
        let num_tokens = seq.token_ids.len();
        while !self.blocks.append(&mut self.running[seq_idx], num_tokens) {
            if seq_idx + 1 == self.running.len() {
                return false;
            }
            self.preempt_last();
        }
        true
    }

    /// Appends drafted tokens to a sequence that is about to generate: as many as fit the step, and the pages that are free.
    fn draft(&mut self, seq_idx: usize, batch: &Batch) {
        let budget = self.limits.token_budget - batch.num_tokens();
        // Every sequence behind this one keeps a token and a page.
        let others = self.running.len() - seq_idx - 1;
        let rows = self.num_spare_rows(batch);
        let seq = &mut self.running[seq_idx];
        let num_tokens = seq.token_ids.len();
        let most = (budget.saturating_sub(1 + others))
            .min(rows)
            .min(seq.max_cached_tokens.saturating_sub(num_tokens))
            .min(self.limits.max_chunk - 1)
            .min(self.blocks.max_tokens(seq, others).saturating_sub(num_tokens));
        seq.drafts.clear();
        if most > 0 && seq.takes_drafts() {
            self.drafter.draft(&seq.token_ids, most, &mut seq.drafts);
            seq.drafts.truncate(most);
            let has_pages = self.blocks.append(seq, num_tokens + seq.drafts.len());
            assert!(has_pages, "sequence {} drafts beyond its pages", seq.id);
        }
    }

    fn preempt_last(&mut self) {
        let Some(mut seq) = self.running.pop() else { return };
        tracing::debug!(id = seq.id, tokens = seq.token_ids.len(), "preempted");
        self.blocks.free(&mut seq);
        self.waiting[seq.priority as usize].push_front(seq);
        self.num_preemptions += 1;
    }

    /// Takes chunks of prompts: of those that run with more than one token to go, and of those that have just begun, which are
    /// behind the first `num_running`. All were given their pages when they were admitted.
    fn schedule_prompts(
        &mut self,
        priority: Priority,
        num_running: usize,
        allowance: &mut Allowance,
        batch: &mut Batch,
    ) {
        let mut prompts = std::mem::take(&mut self.prompts);
        prompts.clear();
        prompts.extend(self.of_priority(priority).filter_map(|seq_idx| {
            let seq = &self.running[seq_idx];
            let is_prompt = seq.num_pending_tokens() > 1 || seq_idx >= num_running;
            let prompt = Prompt::new(seq_idx, seq.num_cached_tokens, seq.num_pending_tokens());
            is_prompt.then(|| prompt.with_rows_from(seq.num_scored_rows()))
        }));
        let room = Room {
            num_tokens: self.limits.token_budget - batch.num_tokens(),
            max_chunk: self.limits.max_chunk,
            num_rows: self.num_spare_rows(batch),
            has_prompts: self.has_prompts(),
        };
        prompts::divide(&mut prompts, room, allowance);
        prompts.iter().for_each(|prompt| self.push(prompt.seq_idx, prompt.num_tokens, batch));
        self.prompts = prompts;
    }

    /// Rows of the LM head that are left if every sequence that may yet have a part in the step keeps one.
    fn num_spare_rows(&self, batch: &Batch) -> usize {
        let rows_kept = self.limits.max_num_seqs - self.scheduled.len();
        self.limits.max_head_rows.saturating_sub(batch.size().head_rows() + rows_kept)
    }

    /// Whether the step has taken a chunk of a prompt already.
    fn has_prompts(&self) -> bool {
        self.scheduled.iter().any(|scheduled| self.running[scheduled.seq_idx].num_pending_tokens() > 1)
    }

    /// Begins with waiting sequences. Low ones wait until no normal one does.
    fn admit_waiting(&mut self, priority: Priority, batch: &mut Batch) {
        while batch.num_tokens() < self.limits.token_budget && self.may_begin(priority) {
            if !self.preempt_until_begins(priority) {
                return;
            }
            let Some(mut seq) = self.waiting[priority as usize].pop_front() else { return };
            let allocated = self.blocks.allocate(&mut seq);
            assert!(allocated, "sequence {} was admitted without pages", seq.id);
            self.turns[priority as usize].begin(&seq, !self.waiting[priority as usize].is_empty());
            let seq_idx = self.of_priority(priority).end;
            self.running.insert(seq_idx, seq);
            debug_assert!(self.scheduled.iter().all(|scheduled| scheduled.seq_idx < seq_idx));
        }
    }

    /// Whether the first waiting sequence of a priority may begin, if need be at the expense of running low ones.
    fn may_begin(&self, priority: Priority) -> bool {
        if self.waiting[..priority as usize].iter().any(|waiting| !waiting.is_empty()) {
            return false;
        }
        let Some(wanted) = self.pages_to_begin(priority) else { return false };
        let (before, after) = self.running.split_at(self.of_priority(priority).end);
        if self.waiting[priority as usize].front().is_some_and(|seq| self.blocks.will_find_more(seq, before))
        {
            return false;
        }
        let num_preemptible: usize = after.iter().map(|seq| seq.block_table.len()).sum();
        before.len() < self.limits.max_num_seqs && wanted <= self.blocks.num_free_pages() + num_preemptible
    }

    /// Preempts low sequences until the first waiting one of a higher priority has a place and pages; says whether it has.
    fn preempt_until_begins(&mut self, priority: Priority) -> bool {
        loop {
            let has_slot = self.running.len() < self.limits.max_num_seqs;
            if has_slot && self.pages_to_begin(priority) <= Some(self.blocks.num_free_pages()) {
                return true;
            }
            if self.of_priority(priority).end == self.running.len() {
                return false;
            }
            self.preempt_last();
        }
    }

    /// Free pages that must be there for the first waiting sequence of a priority to begin: beside its own, one for each
    /// sequence before it that may still grow. Without that reserve, what is admitted would soon be preempted.
    fn pages_to_begin(&self, priority: Priority) -> Option<usize> {
        let seq = self.waiting[priority as usize].front()?;
        let before = &self.running[..self.of_priority(priority).end];
        Some(self.blocks.pages_to_take(seq) + self.num_growing(before))
    }

    /// How many of these may yet need a page.
    fn num_growing(&self, running: &[Sequence]) -> usize {
        let may_grow = |seq: &&Sequence| self.blocks.pages_for(seq.max_cached_tokens) > seq.block_table.len();
        running.iter().filter(may_grow).count()
    }

    /// Adds a running sequence's next tokens to the step, unless they are none.
    fn push(&mut self, seq_idx: usize, num_tokens: usize, batch: &mut Batch) {
        if num_tokens == 0 {
            return;
        }
        let seq = &self.running[seq_idx];
        let start = seq.num_cached_tokens;
        let want = seq.want(num_tokens, self.limits.draws);
        let token_ids = match seq.token_ids.get(start..start + num_tokens) {
            Some(token_ids) => token_ids,
            None => {
                self.tokens.clear();
                self.tokens.extend_from_slice(&seq.token_ids[start..]);
                self.tokens.extend_from_slice(&seq.drafts);
                &self.tokens
            }
        };
        batch.push(token_ids, start, &seq.block_table, want);
        self.scheduled.push(Scheduled { seq_idx, num_tokens, want });
    }

    /// The prompts that run, in the order of their rank, and how many tokens each has to run until it generates.
    #[cfg(test)]
    pub fn pending_prompts(&self) -> Vec<(u64, usize)> {
        let prompts = self.running.iter().filter(|seq| seq.num_cached_tokens < seq.num_prompt_tokens);
        prompts.map(|seq| (seq.id, seq.num_pending_tokens())).collect()
    }

    /// Removes the running sequences of which `ends` is true, takes back their pages, and says how many they were.
    fn remove_running(&mut self, mut ends: impl FnMut(&mut Sequence) -> bool) -> usize {
        let (blocks, num_running) = (&mut self.blocks, self.running.len());
        self.running.retain_mut(|seq| {
            let ends = ends(seq);
            if ends {
                blocks.free(seq);
            }
            !ends
        });
        num_running - self.running.len()
    }
}
