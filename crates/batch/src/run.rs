//! The run itself: lines in, results out, in bounded memory.
//!
//! A reader thread reads a line for each permit, so that at most a window of lines is in memory. The calling thread parses,
//! tokenises and submits the lines and collects their events. When its channel is empty it writes all complete results in
//! one write and waits until they are on disk. Only then do they count as done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

use openai::{Answer, ApiError, Prepared};
use rustorch_llama::{EngineError, EngineHandle, Event, EventSink, Priority, Usage};

use crate::clock::unix_seconds;
use crate::error::{Error, Result};
use crate::input::{Input, RawLine};
use crate::journal::Journal;
use crate::kept::Found;
use crate::request::{Content, Model, OutputLine, Source, no_text, prepare};
use crate::shard::Shard;

/// How a batch is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most lines in memory at once, such as [`Options::window_of`] a batch size.
    pub window: NonZeroUsize,
    /// In which order results are written. Reproducible results are always in that of the input.
    pub order: Order,
    /// Which lines are answered.
    pub shard: Shard,
    /// Priority over other users of the engine.
    pub priority: Priority,
}

impl Options {
    /// The window for an engine that runs so many sequences together: enough that a free slot never waits for a line.
    pub fn window_of(batch_size: NonZeroUsize) -> NonZeroUsize {
        const MULTIPLE: NonZeroUsize = NonZeroUsize::new(4).expect("it is not 0");
        batch_size.saturating_mul(MULTIPLE)
    }
}

/// In which order results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As soon as they are complete.
    AsFinished,
    /// In the order of their input lines.
    OfInput,
}

/// What has been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Results of earlier runs that the output held.
    pub found: Found,
    /// Results of this run, on disk.
    pub results: u64,
    /// Of these results, those that are errors.
    pub errors: u64,
    /// Bytes of the input that belong to these results.
    pub input_bytes: u64,
    /// Bytes of lines that were read and need no answer: blank, done before, or of another shard.
    pub skipped_bytes: u64,
    /// Tokens of the prompts of this run's results.
    pub prompt_tokens: u64,
    /// Of these tokens, those found in the prefix cache.
    pub cached_tokens: u64,
    /// Generated tokens, those of incomplete results included.
    pub generated_tokens: u64,
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum Report<'a> {
    /// What has been done, up to a thousand times a second.
    Totals(&'a Totals),
    /// A field that nobody knows, which had no effect; once for each name.
    IgnoredField {
        /// Its name.
        name: &'a str,
        /// The line in which it was seen first.
        line: u64,
    },
    /// One of the first results of this run that are errors.
    Error {
        /// Its line's id.
        custom_id: &'a str,
        /// What it says, with the line's number.
        message: &'a str,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every line has its result.
    Complete,
    /// It was told to stop; the next run continues from here.
    Stopped,
}

/// What the calling thread receives.
enum Message {
    /// From the reader: a line, the end of the input, or an error.
    Input(Result<Option<RawLine>>),
    /// From the engine.
    Event { job: u64, choice: usize, event: Event },
}

/// Answers every line of `input` that has no result in `journal`.
///
/// Once `stop` is true, the engine finishes its step, complete results are written, and all other work is cancelled.
/// `report` is called on the calling thread.
///
/// # Errors
/// An input that cannot be read, an output that cannot be written, an engine that stops. Results already written stay.
pub fn run(
    engine: &EngineHandle,
    model: &Model<'_>,
    input: Input,
    journal: &mut Journal,
    options: &Options,
    stop: &AtomicBool,
    report: &mut dyn FnMut(Report<'_>),
) -> Result<(Totals, End)> {
    let (messages, receiver) = mpsc::channel();
    let (permits, allowed) = mpsc::channel();
    for _ in 0..options.window.get() {
        let _ = permits.send(());
    }
    let (lines, shard) = (messages.clone(), options.shard);
    let (ledger, scanned) = journal.take_ledger();
    thread::Builder::new()
        .name("batch-reader".to_owned())
        .spawn(move || {
            input.read(shard, ledger, scanned, &allowed, |line| lines.send(Message::Input(line)).is_ok());
        })
        .map_err(Error::named("the reader's thread"))?;

    let totals = Totals { found: journal.found(), ..Totals::default() };
    let mut run = Run {
        engine,
        model,
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
        ignored: BTreeSet::new(),
        new_ignored: Vec::new(),
        reported_errors: 0,
        new_errors: Vec::new(),
    };
    let end = run.serve(&receiver, stop, report)?;
    if end == End::Complete && run.order() == Order::OfInput {
        run.journal.sort()?;
    }
    run.journal.verify()?;
    Ok((run.totals, end))
}

/// A batch under way.
struct Run<'a> {
    engine: &'a EngineHandle,
    model: &'a Model<'a>,
    journal: &'a mut Journal,
    options: &'a Options,
    messages: Sender<Message>,
    /// `None` once no more lines are to be read.
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
    /// Names of fields that had no effect.
    ignored: BTreeSet<String>,
    /// Those that are not reported yet, and their lines.
    new_ignored: Vec<(String, u64)>,
    reported_errors: usize,
    /// Ids and messages of errors that are not reported yet.
    new_errors: Vec<(String, String)>,
}

/// An input line that is being answered. Job numbers count the lines of this run in input order.
struct Place {
    job: u64,
    bytes: u64,
    source: Source,
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

/// Complete results that wait until the results of earlier lines are written.
#[derive(Default)]
struct Turns {
    waiting: BTreeMap<u64, Done>,
    next: u64,
}

/// How long it may take to notice `stop`.
const PATIENCE: Duration = Duration::from_millis(50);
/// Most messages handled between two writes.
const MAX_MESSAGES: usize = 4096;
/// Most names of ignored fields that are reported.
const MAX_IGNORED: usize = 100;
/// Most errors of lines that are reported.
const MAX_ERRORS: usize = 10;
/// Bytes of complete results that cause a write at once.
const MAX_PENDING: usize = 1 << 20;

impl Run<'_> {
    fn serve(
        &mut self,
        receiver: &Receiver<Message>,
        stop: &AtomicBool,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<End> {
        let mut input_ended = false;
        while !(self.jobs.is_empty() && (input_ended || self.permits.is_none())) {
            let first = match receiver.recv_timeout(PATIENCE) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::EngineStopped),
            };
            for message in first.into_iter().chain(receiver.try_iter()).take(MAX_MESSAGES) {
                input_ended |= matches!(message, Message::Input(Ok(None)));
                self.on_message(message)?;
                if self.journal.pending_bytes() >= MAX_PENDING {
                    break;
                }
            }
            self.journal.flush()?;
            report(Report::Totals(&self.totals));
            for (name, line) in self.new_ignored.drain(..) {
                report(Report::IgnoredField { name: &name, line });
            }
            for (custom_id, message) in self.new_errors.drain(..) {
                report(Report::Error { custom_id: &custom_id, message: &message });
            }
            if stop.load(Ordering::Relaxed) && self.permits.take().is_some() {
                // The engine cancels everything before its next step. Its answers to the running step still come.
                self.given_up.store(true, Ordering::Relaxed);
            }
        }
        let is_complete = input_ended && !self.has_given_up;
        Ok(if is_complete { End::Complete } else { End::Stopped })
    }

    fn on_message(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Input(Ok(Some(line))) if self.permits.is_some() => self.on_line(line),
            Message::Input(Ok(Some(_))) => {
                self.has_given_up = true;
                Ok(())
            }
            Message::Input(Ok(None)) => Ok(()),
            Message::Input(Err(error)) => Err(error),
            Message::Event { job, choice, event } => self.on_event(job, choice, event),
        }
    }

    fn on_line(&mut self, line: RawLine) -> Result<()> {
        let RawLine { number, bytes, skipped, custom_id, hash, text } = line;
        let source = Source { number, custom_id, hash };
        let place = Place { job: self.next_job, bytes, source };
        self.totals.skipped_bytes += skipped;
        self.next_job += 1;
        let prepared = text.and_then(|text| prepare(&text, &place.source.custom_id, self.model));
        match prepared.and_then(|prepared| self.with_form(prepared)) {
            Ok(prepared) => {
                self.note_ignored(&prepared, number);
                self.submit(place, prepared)
            }
            Err(error) => {
                self.refuse(place, error);
                Ok(())
            }
        }
    }

    /// Refuses a request whose answer would have no form in the output.
    fn with_form(&self, prepared: Prepared) -> std::result::Result<Prepared, ApiError> {
        if self.journal.is_of_texts() && !prepared.answer.is_text() { Err(no_text()) } else { Ok(prepared) }
    }

    fn note_ignored(&mut self, prepared: &Prepared, line: u64) {
        for name in &prepared.ignored {
            if self.ignored.len() < MAX_IGNORED && self.ignored.insert(name.clone()) {
                self.new_ignored.push((name.clone(), line));
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
            Err(error) => self.refuse(place, error),
        }
        Ok(())
    }

    fn on_event(&mut self, job: u64, choice: usize, event: Event) -> Result<()> {
        // A job that has failed may still have events in the channel.
        let Some(flight) = self.jobs.get_mut(&job) else { return Ok(()) };
        if event == Event::Error(EngineError::Stopped) {
            self.jobs.remove(&job);
            self.has_given_up = true;
            return if self.permits.is_none() { Ok(()) } else { Err(Error::EngineStopped) };
        }
        if let Event::Error(error @ EngineError::Run(_)) = &event
            && self.journal.is_reproducible()
        {
            let custom_id = flight.place.source.custom_id.clone();
            return Err(Error::StepFailed { custom_id, message: error.to_string() });
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
                self.refuse(place, error);
            }
        }
        Ok(())
    }

    fn answer(&mut self, place: Place, answer: Answer) {
        let Place { job, bytes, source } = place;
        let number = source.number;
        let usage = Some(answer.usage());
        let line = OutputLine::success(source, answer, self.model.tokenizer, self.content());
        self.complete(job, Done { number, bytes, line, usage });
    }

    fn refuse(&mut self, place: Place, error: ApiError) {
        let Place { job, bytes, source } = place;
        let (number, custom_id) = (source.number, source.custom_id.clone());
        let line = OutputLine::error(source, error, self.content());
        if self.reported_errors < MAX_ERRORS
            && let Some(message) = line.error_message()
        {
            self.reported_errors += 1;
            self.new_errors.push((custom_id, message.to_owned()));
        }
        self.complete(job, Done { number, bytes, line, usage: None });
    }

    fn order(&self) -> Order {
        if self.journal.is_reproducible() { Order::OfInput } else { self.options.order }
    }

    /// What a result that is complete now says beside its answer.
    fn content(&self) -> Content {
        match self.journal.is_reproducible() {
            true => Content::Reproducible,
            false => Content::Served { created: unix_seconds(SystemTime::now()) },
        }
    }

    /// Adds a result to the journal and gives the reader a permit; in input order, earlier lines come first.
    fn complete(&mut self, job: u64, done: Done) {
        match self.order() {
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

/// Cancels what still runs, however the run ends: others may use the engine.
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
