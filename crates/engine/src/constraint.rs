//! Constraints on what a sequence may say: a component of the sampler.
//!
//! After each token a sequence's constraint works out which tokens may come next. That takes up to milliseconds, so it is
//! done on helper threads while the model runs, and the sampler waits for it only if the model was faster. The state stays with
//! the sequence when its pages are taken away. Masks depend on the sequence alone, never on its neighbours or on timing.

use std::fmt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What texts must be. Made before a request is submitted, on the caller's thread; requests share it.
pub trait Grammar: Send + Sync {
    /// The state of a text that is still empty.
    fn start(&self) -> Box<dyn Constraint>;
}

/// The state of one text that must follow a grammar.
pub trait Constraint: Send {
    /// Whether any token may follow and the text may end. The sampler asks for no mask then.
    fn is_free(&self) -> bool;

    /// The tokens that may follow: bit `id % 32` of word `id / 32`. Tokens beyond its end may not, and those that end
    /// generation need not be in it. Empty if nothing but the end may follow.
    ///
    /// # Errors
    /// What keeps it from being computed; the request ends with it.
    fn mask(&mut self) -> Result<Vec<u32>, String>;

    /// Whether the text may end here: then tokens that end generation may follow too.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    fn may_end(&mut self) -> Result<bool, String>;

    /// Goes on by a token.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    fn commit(&mut self, token_id: u32) -> Result<(), String>;
}

/// A grammar that requests share. Two are equal if they are the same one.
#[derive(Clone)]
pub struct SharedGrammar(pub Arc<dyn Grammar>);

impl fmt::Debug for SharedGrammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedGrammar").finish_non_exhaustive()
    }
}

impl PartialEq for SharedGrammar {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The tokens that may follow.
#[derive(Debug, Default)]
pub(crate) struct TokenMask(Vec<u32>);

impl TokenMask {
    /// Adds a token.
    pub fn allow(&mut self, token_id: u32) {
        let word = token_id as usize / 32;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (token_id % 32);
    }

    /// Makes the scores of all other tokens minus infinity.
    pub fn apply(&self, scores: &mut [f32]) {
        for (index, scores) in scores.chunks_mut(32).enumerate() {
            match self.0.get(index).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => scores.fill(f32::NEG_INFINITY),
                word => {
                    let outside = scores.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    outside.for_each(|(_, score)| *score = f32::NEG_INFINITY);
                }
            }
        }
    }
}

/// A sequence's constraint and what it says about the next token.
#[derive(Debug)]
pub(crate) struct Constrained(State);

enum State {
    /// `None` if any token may follow.
    Ready(Box<dyn Constraint>, Option<Next>),
    /// On a helper thread.
    Pending(Receiver<(Box<dyn Constraint>, Result<Next, String>)>),
    Failed,
}

/// What may follow.
#[derive(Debug)]
pub(crate) struct Next {
    pub mask: TokenMask,
    /// Whether tokens that end generation are among it.
    pub may_end: bool,
    /// Whether nothing else is.
    pub is_finished: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(..) => "Ready",
            Self::Pending(_) => "Pending",
            Self::Failed => "Failed",
        })
    }
}

impl Constrained {
    /// At the beginning of a text. The first mask is computed here, on the caller's thread.
    pub fn new(grammar: &SharedGrammar) -> Result<Self, String> {
        let mut constraint = grammar.0.start();
        let next = if constraint.is_free() { None } else { Some(next(constraint.as_mut())?) };
        Ok(Self(State::Ready(constraint, next)))
    }

    /// Whether any token may follow.
    pub fn is_free(&self) -> bool {
        matches!(self.0, State::Ready(_, None))
    }

    /// What may follow, `None` if anything may. Waits for it if need be.
    pub fn next(&mut self) -> Result<Option<&mut Next>, String> {
        if let State::Pending(pending) = &self.0 {
            self.0 = match pending.recv() {
                Ok((constraint, Ok(next))) => State::Ready(constraint, Some(next)),
                Ok((_, Err(error))) => return self.fail(error),
                Err(_) => return self.fail("the thread that computes masks ended".to_owned()),
            };
        }
        match &mut self.0 {
            State::Ready(_, next) => Ok(next.as_mut()),
            State::Pending(_) | State::Failed => Err("the constraint has failed before".to_owned()),
        }
    }

    /// Goes on by a token, and begins to compute what follows it.
    pub fn commit(&mut self, token_id: u32, helpers: &mut MaskThreads) -> Result<(), String> {
        let State::Ready(mut constraint, _) = std::mem::replace(&mut self.0, State::Failed) else {
            return Err("the constraint has failed before".to_owned());
        };
        constraint.commit(token_id)?;
        self.0 = if constraint.is_free() {
            State::Ready(constraint, None)
        } else {
            let (sender, receiver) = mpsc::channel();
            helpers.submit(Box::new(move || {
                let next = next(constraint.as_mut());
                // The sequence may be gone.
                let _ = sender.send((constraint, next));
            }));
            State::Pending(receiver)
        };
        Ok(())
    }

    fn fail<T>(&mut self, error: String) -> Result<T, String> {
        self.0 = State::Failed;
        Err(error)
    }
}

fn next(constraint: &mut dyn Constraint) -> Result<Next, String> {
    let mask = TokenMask(constraint.mask()?);
    let may_end = constraint.may_end()?;
    let is_finished = may_end && mask.0.iter().all(|&word| word == 0);
    Ok(Next { mask, may_end, is_finished })
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that compute masks; none before there is the first to compute. They end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct MaskThreads(Option<Sender<Job>>);

/// Most threads: the model needs the processor more.
const MAX_THREADS: usize = 4;

impl MaskThreads {
    fn submit(&mut self, job: Job) {
        if self.0.is_none() {
            self.0 = Self::start();
        }
        let left = match &self.0 {
            Some(jobs) => jobs.send(job).err().map(|mpsc::SendError(job)| job),
            None => Some(job),
        };
        // No thread is to be had.
        if let Some(job) = left {
            job();
        }
    }

    fn start() -> Option<Sender<Job>> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        let available = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let wanted = (available / 2).clamp(1, MAX_THREADS);
        let started = (0..wanted).filter(|_| {
            let receiver = Arc::clone(&receiver);
            let work = move || {
                loop {
                    let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match job {
                        Ok(job) => job(),
                        Err(_) => return,
                    }
                }
            };
            thread::Builder::new().name("masks".to_owned()).spawn(work).is_ok()
        });
        (started.count() > 0).then_some(sender)
    }
}
