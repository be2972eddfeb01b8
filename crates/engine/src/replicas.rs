//! Several engines for one model, each on a device of its own, behind one handle.
//!
//! What an engine computes for a sequence depends on the sequence alone (law 1), and a sequence between two steps is no more than
//! its tokens and the state of its generation. So which engine it runs on never shows in its events, and it can move from
//! one to another as it can be preempted: without its pages, between two of its tokens.
//!
//! - A sequence is sent to the engine that has least to do before it ends, where the part of its prompt that an engine has
//!   in its prefix cache, as far as [`Router`] knows, is nothing to do. Sequences with the same prompt stay together.
//! - An engine that has more waiting than it has room for gives what waits to one that has room, after each step.
//! - An engine whose step fails, or whose runner panics, gives all that it has to the others and runs no more. The last one
//!   that runs ends requests with the error, as one without others does.
//!
//! Within an engine all is as if it were alone: priorities, and the turns of clients.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::handle::Command;
use crate::prefix_index::PrefixCache;
use crate::request::Priority;
pub(crate) use crate::router::MAX_ENGINES;
use crate::router::{Blocks, Router};
use crate::sequence::Sequence;
use crate::stats::EngineStats;

/// What low sequences that an engine has count for a normal one, which they make room for: the part of this number.
const LOW_PART: u64 = 8;

/// One of the engines behind a handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStats {
    /// Where it runs, in words.
    pub device: String,
    /// False once it has failed and its requests have gone to others.
    pub is_running: bool,
    /// What it has done. Sequences that it gave to others are counted where they end.
    pub stats: EngineStats,
}

/// The engines, as their handle and they themselves see each other.
#[derive(Debug)]
pub(crate) struct Replicas {
    replicas: Vec<Replica>,
    /// `None` if prompts that begin alike share nothing.
    router: Option<Mutex<Router>>,
    /// Those that have not failed. Locked while one fails, so that the last one knows that it is.
    num_running: Mutex<usize>,
}

#[derive(Debug)]
struct Replica {
    device: String,
    commands: Sender<Command>,
    is_running: AtomicBool,
    load: Arc<Load>,
    room: SharedRoom,
    stats: Mutex<EngineStats>,
}

/// Tokens that an engine may yet have to run, of normal and of low sequences.
#[derive(Debug, Default)]
struct Load([AtomicU64; 2]);

/// A sequence's part of an engine's load.
#[derive(Debug)]
pub(crate) struct LoadShare {
    load: Arc<Load>,
    priority: Priority,
    num_tokens: u64,
}

/// What an engine could take in and begin with at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spare {
    /// Places for normal sequences, and for low ones; none if such ones wait already.
    pub seats: [usize; 2],
    /// Free pages.
    pub pages: usize,
}

/// The latest [`Spare`] of an engine.
#[derive(Debug)]
struct SharedRoom {
    seats: [AtomicUsize; 2],
    pages: AtomicUsize,
}

/// An engine's place among the others.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub replicas: Arc<Replicas>,
    pub idx: usize,
}

impl LoadShare {
    fn new(load: &Arc<Load>, priority: Priority, num_tokens: usize) -> Self {
        let num_tokens = num_tokens as u64;
        load.0[priority as usize].fetch_add(num_tokens, Ordering::Relaxed);
        Self { load: Arc::clone(load), priority, num_tokens }
    }
}

impl Drop for LoadShare {
    fn drop(&mut self) {
        self.load.0[self.priority as usize].fetch_sub(self.num_tokens, Ordering::Relaxed);
    }
}

impl Load {
    /// What a sequence of a priority has before it.
    fn before(&self, priority: Priority) -> u64 {
        let [normal, low] = [0, 1].map(|idx: usize| self.0[idx].load(Ordering::Relaxed));
        match priority {
            Priority::Normal => normal + low / LOW_PART,
            Priority::Low => normal + low,
        }
    }
}

impl Replicas {
    /// Engines on these devices, which are told by these channels.
    pub fn new(
        engines: impl IntoIterator<Item = (String, Sender<Command>, EngineStats, Spare)>,
        prefix_cache: PrefixCache,
    ) -> Self {
        let replica = |(device, commands, stats, spare)| Replica {
            device,
            commands,
            is_running: AtomicBool::new(true),
            load: Arc::default(),
            room: SharedRoom::new(spare),
            stats: Mutex::new(stats),
        };
        let replicas: Vec<Replica> = engines.into_iter().map(replica).collect();
        let finds = prefix_cache == PrefixCache::On && replicas.len() > 1;
        let num_running = Mutex::new(replicas.len());
        Self { replicas, router: finds.then(Mutex::default), num_running }
    }

    /// Tells every engine to stop.
    pub fn stop(&self) {
        // A failure means that the thread has ended already.
        self.replicas.iter().for_each(|replica| drop(replica.commands.send(Command::Stop)));
    }

    /// The figures of each after its latest step.
    pub fn stats(&self) -> impl Iterator<Item = ReplicaStats> {
        self.replicas.iter().map(|replica| ReplicaStats {
            device: replica.device.clone(),
            is_running: replica.is_running.load(Ordering::Relaxed),
            stats: *lock(&replica.stats),
        })
    }

    /// Sends sequences to the engines that suit them.
    ///
    /// # Errors
    /// The sequences that no engine has taken, because all threads have ended.
    pub fn queue(&self, seqs: Vec<Sequence>) -> Result<(), Vec<Sequence>> {
        if let [replica] = &self.replicas[..] {
            return replica.send(seqs);
        }
        let mut parts: Vec<Vec<Sequence>> = self.replicas.iter().map(|_| Vec::new()).collect();
        let mut last = None;
        for mut seq in seqs {
            let blocks = self.blocks(&seq);
            let is_like = |last: &Sequence| last.token_ids == seq.token_ids;
            let with_last = last.filter(|&idx: &usize| parts[idx].last().is_some_and(is_like));
            let idx = with_last.unwrap_or_else(|| self.choose(&seq, blocks.as_ref()));
            self.assign(&mut seq, blocks.as_ref(), idx);
            parts[idx].push(seq);
            last = Some(idx);
        }
        let parts = parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty());
        let mut left = Vec::new();
        parts.for_each(|(idx, part)| left.extend(self.send(idx, part).err().unwrap_or_default()));
        if left.is_empty() { Ok(()) } else { Err(left) }
    }

    /// Sends sequences to an engine or, if its thread has ended, to any that runs. One that has failed would only pass them on.
    fn send(&self, idx: usize, mut seqs: Vec<Sequence>) -> Result<(), Vec<Sequence>> {
        let others = self.replicas.iter().cycle().skip(idx).take(self.replicas.len());
        for replica in others.filter(|replica| replica.is_running.load(Ordering::Relaxed)) {
            match replica.send(seqs) {
                Ok(()) => return Ok(()),
                Err(returned) => seqs = returned,
            }
        }
        Err(seqs)
    }

    /// Where a sequence ends first, of the engines that run.
    fn choose(&self, seq: &Sequence, blocks: Option<&Blocks>) -> usize {
        let running = self.replicas.iter().enumerate();
        let running = running.filter(|(_, replica)| replica.is_running.load(Ordering::Relaxed));
        let before = |idx: usize| self.replicas[idx].load.before(seq.priority);
        let best = running.min_by_key(|&(idx, _)| before(idx) + self.num_to_run(seq, blocks, idx) as u64);
        best.map_or(0, |(idx, _)| idx)
    }

    /// Makes a sequence a part of what an engine has to do.
    fn assign(&self, seq: &mut Sequence, blocks: Option<&Blocks>, idx: usize) {
        let num_tokens = self.num_to_run(seq, blocks, idx);
        seq.load = Some(LoadShare::new(&self.replicas[idx].load, seq.priority, num_tokens));
        if let (Some(router), Some(blocks)) = (&self.router, blocks) {
            lock(router).note(blocks, idx);
        }
    }

    /// Tokens that an engine has to run for a sequence, as far as is known.
    fn num_to_run(&self, seq: &Sequence, blocks: Option<&Blocks>, idx: usize) -> usize {
        let known = self.router.as_ref().zip(blocks);
        let num_known = known.map_or(0, |(router, blocks)| lock(router).num_known(blocks, idx));
        seq.max_cached_tokens.saturating_sub(num_known)
    }

    fn blocks(&self, seq: &Sequence) -> Option<Blocks> {
        Some(lock(self.router.as_ref()?).blocks(&seq.token_ids))
    }
}

impl Replica {
    fn send(&self, seqs: Vec<Sequence>) -> Result<(), Vec<Sequence>> {
        self.commands.send(Command::Submit(seqs)).map_err(|SendError(command)| match command {
            Command::Submit(seqs) => seqs,
            Command::Stop => Vec::new(),
        })
    }
}

impl Place {
    /// Says what the engine has done, and what it could take in.
    pub fn publish(&self, stats: EngineStats, spare: Spare) {
        let Replica { room, stats: published, .. } = self.own();
        *lock(published) = stats;
        room.store(spare);
    }

    /// Offers others what they could take in: `take` is told a priority and what there is room for.
    pub fn give(&self, mut take: impl FnMut(Priority, Spare) -> Vec<Sequence>) {
        for priority in [Priority::Normal, Priority::Low] {
            for (idx, replica) in
                self.replicas.replicas.iter().enumerate().filter(|&(idx, _)| idx != self.idx)
            {
                let spare = replica.room.load();
                if spare.seats[priority as usize] == 0 || !replica.is_running.load(Ordering::Relaxed) {
                    continue;
                }
                let mut seqs = take(priority, spare);
                if seqs.is_empty() {
                    continue;
                }
                tracing::debug!(sequences = seqs.len(), to = replica.device, "given to an engine with room");
                // Until it says so again, which it does after its next step.
                replica.room.store(Spare::default());
                for seq in &mut seqs {
                    seq.leave();
                    let blocks = self.replicas.blocks(seq);
                    self.replicas.assign(seq, blocks.as_ref(), idx);
                }
                // Those of an engine that has stopped end with it, as these would.
                drop(replica.send(seqs));
            }
        }
    }

    /// Takes the engine out of the choice, if others run. False if it is the last one.
    pub fn retire(&self) -> bool {
        let mut num_running = lock(&self.replicas.num_running);
        if *num_running == 1 {
            return false;
        }
        *num_running -= 1;
        self.own().is_running.store(false, Ordering::Relaxed);
        true
    }

    /// Gives sequences to the others.
    pub fn pass_on(&self, mut seqs: Vec<Sequence>) {
        seqs.iter_mut().for_each(Sequence::leave);
        // If all have stopped, these end as they do.
        drop(self.replicas.queue(seqs));
    }

    /// Where the engine runs, in words.
    pub fn device(&self) -> &str {
        &self.own().device
    }

    fn own(&self) -> &Replica {
        &self.replicas.replicas[self.idx]
    }
}

impl SharedRoom {
    fn new(spare: Spare) -> Self {
        Self { seats: spare.seats.map(AtomicUsize::new), pages: AtomicUsize::new(spare.pages) }
    }

    fn store(&self, spare: Spare) {
        self.pages.store(spare.pages, Ordering::Relaxed);
        self.seats.iter().zip(spare.seats).for_each(|(seats, spare)| seats.store(spare, Ordering::Relaxed));
    }

    fn load(&self) -> Spare {
        let seats = [0, 1].map(|idx: usize| self.seats[idx].load(Ordering::Relaxed));
        Spare { seats, pages: self.pages.load(Ordering::Relaxed) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
