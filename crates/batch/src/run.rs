//! The run itself: lines in, results out, in bounded memory.
//!
//! A reader thread brings lines as places for them come free, so at most a window of them is held at once. The calling
//! thread parses, tokenises and submits them and gathers their events. Whenever it has taken all that is there, it writes the
//! results that are complete in one piece and waits until they are on disk; only then do they count as done.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openai::{Answer, Prepared};
use rustorch_llama::{EngineError, EngineHandle, Event, EventSink, Priority, Usage};

use crate::error::{Error, Result};
use crate::input::{Input, RawLine, Shard};
use crate::journal::{Found, Journal};
use crate::request::{LineError, Model, OutputLine, prepare};

/// How a batch is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most lines that are held at once, from the oldest that is not done. A few times what the engine runs together, so that
    /// a free place there never waits for a line.
    pub window: NonZeroUsize,
    /// In which order results are written.
    pub order: Order,
    /// Which lines are answered.
    pub shard: Shard,
    /// Who goes first, if others use the engine.
    pub priority: Priority,
}

/// In which order results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they come.
    AsFinished,
    /// In that of their lines.
    OfInput,
}

/// What has been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Results that were there before.
    pub found: Found,
    /// Results of this run, on disk.
    pub results: u64,
    /// Those of them that are errors.
    pub errors: u64,
    /// Bytes of the input up to lines that are done.
    pub input_bytes: u64,
    /// Tokens of the prompts of this run's results.
    pub prompt_tokens: u64,
    /// Those of them that were found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens that were generated, also for what is not complete.
    pub generated_tokens: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every line has its result.
    Complete,
    /// It was told to stop; another run goes on from here.
    Stopped,
}

/// What reaches the calling thread.
pub(crate) enum Message {
    Line(RawLine),
    EndOfInput,
    ReadFailed(std::io::Error),
    Event { job: u64, choice: usize, event: Event },
}

/// Answers every line of `input` that `journal` has no result of.
///
/// Once `stop` is true, the engine's running step is finished, results that are complete are written, and all other work is
/// given up. `progress` is told of new figures as they come, up to a thousand times a second.
///
/// # Errors
/// An input that cannot be read, an output that cannot be written, an engine that stops. What was written before stays.
pub fn run(
    engine: &EngineHandle,
    model: &Model<'_>,
    input: Input,
    journal: &mut Journal,
    options: &Options,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Totals),
) -> Result<(Totals, End)> {
    let (messages, receiver) = mpsc::channel();
    let (permits, allowed) = mpsc::channel();
    for _ in 0..options.window.get() {
        let _ = permits.send(());
    }
    let (lines, done, shard) = (messages.clone(), journal.take_index(), options.shard);
    let path = input.path().to_owned();
    thread::Builder::new()
        .name("batch-reader".to_owned())
        .spawn(move || input.read(shard, done, &lines, &allowed))
        .map_err(Error::named("the reader's thread"))?;

    let totals = Totals { found: journal.found(), ..Totals::default() };
    let mut run = Run {
        engine,
        model,
        input: path,
        journal,
        options,
        messages,
        permits: Some(permits),
        jobs: HashMap::new(),
        next_job: 0,
        turns: Turns::default(),
        has_given_up: false,
        totals,
        given_up: Arc::default(),
    };
    let end = run.serve(&receiver, stop, progress)?;
    if end == End::Complete && options.order == Order::OfInput {
        run.journal.sort()?;
    }
    Ok((run.totals, end))
}

/// A batch under way.
struct Run<'a> {
    engine: &'a EngineHandle,
    model: &'a Model<'a>,
    /// In messages.
    input: PathBuf,
    journal: &'a mut Journal,
    options: &'a Options,
    messages: Sender<Message>,
    /// None once no more lines are wanted.
    permits: Option<Sender<()>>,
    /// Requests in flight, by job number.
    jobs: HashMap<u64, Flight>,
    next_job: u64,
    turns: Turns,
    /// Whether a line was left without a result.
    has_given_up: bool,
    totals: Totals,
    /// Set to cancel everything in flight.
    given_up: Arc<AtomicBool>,
}

/// Where an input line stands. Its job number is its turn among those that this run answers.
struct Place {
    job: u64,
    number: u64,
    bytes: u64,
    custom_id: String,
}

/// A request in flight.
struct Flight {
    place: Place,
    answer: Answer,
    /// Set to cancel those of its sequences that still run.
    dropped: Arc<AtomicBool>,
}

/// A result that is complete.
struct Done {
    number: u64,
    bytes: u64,
    line: OutputLine,
    usage: Option<Usage>,
}

/// Results that wait for those of lines before theirs.
#[derive(Default)]
struct Turns {
    waiting: BTreeMap<u64, Done>,
    next: u64,
}

/// How long it may take until a stop is noticed.
const PATIENCE: Duration = Duration::from_millis(50);
/// Most messages that are taken before what is complete is written.
const MAX_MESSAGES: usize = 4096;
/// Most bytes of results that wait to be written, but for the last of them.
const MAX_PENDING: usize = 1 << 20;

impl Run<'_> {
    fn serve(
        &mut self,
        receiver: &Receiver<Message>,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(&Totals),
    ) -> Result<End> {
        let mut input_ended = false;
        while !(self.jobs.is_empty() && (input_ended || self.permits.is_none())) {
            let first = match receiver.recv_timeout(PATIENCE) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::EngineStopped),
            };
            for message in first.into_iter().chain(receiver.try_iter()).take(MAX_MESSAGES) {
                input_ended |= matches!(message, Message::EndOfInput);
                self.on_message(message)?;
                if self.journal.pending_bytes() >= MAX_PENDING {
                    break;
                }
            }
            self.journal.flush()?;
            progress(&self.totals);
            if stop.load(Ordering::Relaxed) && self.permits.take().is_some() {
                // The engine ends everything before its next step; its answers to this one are still awaited.
                self.given_up.store(true, Ordering::Relaxed);
            }
        }
        let is_complete = input_ended && !self.has_given_up;
        Ok(if is_complete { End::Complete } else { End::Stopped })
    }

    fn on_message(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Line(line) if self.permits.is_some() => self.on_line(line),
            Message::Line(_) => {
                self.has_given_up = true;
                Ok(())
            }
            Message::EndOfInput => Ok(()),
            Message::ReadFailed(error) => Err(Error::io(&self.input)(error)),
            Message::Event { job, choice, event } => self.on_event(job, choice, event),
        }
    }

    fn on_line(&mut self, line: RawLine) -> Result<()> {
        let RawLine { number, consumed, custom_id, text } = line;
        let place = Place { job: self.next_job, number, bytes: consumed, custom_id };
        self.next_job += 1;
        match text.and_then(|text| prepare(&text, &place.custom_id, self.model)) {
            Ok(prepared) => self.submit(place, prepared),
            Err(error) => {
                self.refuse(place, error);
                Ok(())
            }
        }
    }

    fn submit(&mut self, place: Place, prepared: Prepared) -> Result<()> {
        let Prepared { work, answer, .. } = prepared;
        let dropped = Arc::new(AtomicBool::new(false));
        let submitted = work.with_priority(self.options.priority).submit(self.engine, |choice| Sink {
            job: place.job,
            choice,
            messages: self.messages.clone(),
            dropped: Arc::clone(&dropped),
            given_up: Arc::clone(&self.given_up),
        });
        match submitted {
            Ok(()) => drop(self.jobs.insert(place.job, Flight { place, answer, dropped })),
            Err(error) if error.status == STOPPED => return Err(Error::EngineStopped),
            Err(error) => self.refuse(place, error.into()),
        }
        Ok(())
    }

    fn on_event(&mut self, job: u64, choice: usize, event: Event) -> Result<()> {
        // What has failed may still have events under way.
        let Some(flight) = self.jobs.get_mut(&job) else { return Ok(()) };
        if event == Event::Error(EngineError::Stopped) {
            self.jobs.remove(&job);
            self.has_given_up = true;
            return if self.permits.is_none() { Ok(()) } else { Err(Error::EngineStopped) };
        }
        self.totals.generated_tokens += u64::from(matches!(event, Event::Token(_)));
        let added = flight.answer.add(choice, event);
        if added.is_ok() && !flight.answer.is_complete() {
            return Ok(());
        }
        let Some(Flight { place, answer, dropped }) = self.jobs.remove(&job) else { return Ok(()) };
        match added {
            Ok(()) => self.answer(place, answer),
            Err(error) => {
                dropped.store(true, Ordering::Relaxed);
                self.refuse(place, error.into());
            }
        }
        Ok(())
    }

    fn answer(&mut self, place: Place, answer: Answer) {
        let Place { job, number, bytes, custom_id } = place;
        let usage = Some(answer.usage());
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let line = OutputLine::success(number, custom_id, answer, self.model.tokenizer, created);
        self.complete(job, Done { number, bytes, line, usage });
    }

    fn refuse(&mut self, place: Place, error: LineError) {
        let Place { job, number, bytes, custom_id } = place;
        let line = OutputLine::error(number, custom_id, error);
        self.complete(job, Done { number, bytes, line, usage: None });
    }

    /// Takes a result into the journal and lets the reader bring the next line, or lets it wait for its turn.
    fn complete(&mut self, job: u64, done: Done) {
        match self.options.order {
            Order::AsFinished => self.push(&done),
            Order::OfInput => {
                self.turns.waiting.insert(job, done);
                while let Some(done) = self.turns.waiting.remove(&self.turns.next) {
                    self.turns.next += 1;
                    self.push(&done);
                }
            }
        }
    }

    fn push(&mut self, done: &Done) {
        let &Done { number, bytes, ref line, usage } = done;
        self.journal.push(number, line);
        if let Some(permits) = &self.permits {
            // The reader is gone once the input has ended.
            let _ = permits.send(());
        }
        self.totals.results += 1;
        self.totals.errors += u64::from(usage.is_none());
        self.totals.input_bytes += bytes;
        let usage = usage.unwrap_or_default();
        self.totals.prompt_tokens += usage.prompt_tokens as u64;
        self.totals.cached_tokens += usage.cached_tokens as u64;
    }
}

/// Whatever happens, nothing that nobody waits for goes on running in an engine that others use.
impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// The status that an engine's end has in the API.
const STOPPED: u16 = 503;

/// Sends a sequence's events to the calling thread.
struct Sink {
    job: u64,
    choice: usize,
    messages: Sender<Message>,
    dropped: Arc<AtomicBool>,
    given_up: Arc<AtomicBool>,
}

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        // Nobody listens once the run has failed.
        let _ = self.messages.send(Message::Event { job: self.job, choice: self.choice, event });
    }

    fn is_closed(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) || self.given_up.load(Ordering::Relaxed)
    }
}
