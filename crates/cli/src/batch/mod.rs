//! `rustorch batch`: a file of requests in, a file of results out, in bounded memory.
//!
//! A reader thread brings lines as places for them come free, so at most a few times the batch is held at once. The main
//! thread parses, tokenises and submits them, gathers events and writes each result the moment its request ends.

mod api;
mod input;
mod progress;
mod request;
mod response;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Stdout, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustorch_llama::{EngineError, EngineHandle, Event, EventSink, Tokenizer, Usage};

use self::input::RawLine;
use self::progress::Progress;
use self::request::{Job, Line, LineError};
use self::response::{Answer, OutputLine};
use crate::model_args::ModelArgs;
use crate::output;

/// Run a file of requests (OpenAI batch format) through the model
///
/// Each input line is a request for /v1/completions or /v1/chat/completions in OpenAI's batch format, or a plain object
/// with "prompt" or "messages" and the same fields. Each gives one output line, in the order in which they finish. A line
/// that cannot be served gives an output line with an error that names its number, and costs nothing else.
///
/// Served are max_tokens (default 16; for chats what the context has room for), temperature (default 1), top_p, n, stop,
/// seed, logprobs, presence_penalty, frequency_penalty and logit_bias as in OpenAI's API, and top_k, min_p,
/// repetition_penalty, min_tokens, stop_token_ids and ignore_eos as in vLLM's. A request without a seed gets one from its
/// custom_id and --seed: the same in any file.
#[derive(clap::Args)]
pub struct Args {
    /// JSON lines to read, or - for standard input
    #[arg(short, long, value_name = "IN.jsonl")]
    input_file: PathBuf,
    /// JSON lines to write, or - for standard output; an existing file is replaced
    #[arg(short, long, value_name = "OUT.jsonl")]
    output_file: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

/// Requests held at once, as a multiple of the batch: enough that a free place in the batch never waits for a line.
const WINDOW: usize = 4;

/// What reaches the main thread.
enum Message {
    Line(RawLine),
    EndOfInput,
    ReadFailed(std::io::Error),
    Event { job: u64, choice: usize, event: Event },
}

pub fn run(args: &Args) -> Result<()> {
    let (input, input_len) = input::open(&args.input_file)?;
    refuse_same_file(args)?;
    // Before a load that may take minutes, and without harm to an older output should it fail.
    let output = Output::open(&args.output_file)?;
    let (engine, tokenizer, weights) = args.model.start_engine()?;
    output.clear()?;

    let (messages, receiver) = mpsc::channel();
    let (permits, allowed) = mpsc::channel();
    for _ in 0..WINDOW * weights.config().batch_size {
        let _ = permits.send(());
    }
    let lines = messages.clone();
    thread::Builder::new()
        .name("batch-reader".to_owned())
        .spawn(move || input::read_lines(input, &lines, &allowed))?;

    let mut run = Run {
        engine,
        tokenizer,
        model_name: args.model.file.name(),
        seed: args.model.run.seed,
        messages,
        permits,
        output,
        jobs: HashMap::new(),
        next_job: 0,
        progress: Progress::start(input_len),
    };
    run.serve(&receiver, &args.input_file)?;
    output::note(&run.progress.finish());
    Ok(())
}

/// A batch under way.
struct Run {
    engine: EngineHandle,
    tokenizer: Arc<Tokenizer>,
    model_name: String,
    seed: u64,
    messages: Sender<Message>,
    permits: Sender<()>,
    output: Output,
    /// Requests in flight, by job number.
    jobs: HashMap<u64, Flight>,
    next_job: u64,
    progress: Progress,
}

/// Where an input line stands.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    bytes: u64,
}

/// A request in flight.
struct Flight {
    place: Place,
    answer: Answer,
    /// Set to cancel those of its sequences that still run.
    dropped: Arc<AtomicBool>,
}

impl Run {
    fn serve(&mut self, receiver: &Receiver<Message>, input: &Path) -> Result<()> {
        let mut input_ended = false;
        while !(input_ended && self.jobs.is_empty()) {
            match receiver.recv().context("the engine has stopped")? {
                Message::Line(line) => self.on_line(line)?,
                Message::EndOfInput => input_ended = true,
                Message::ReadFailed(error) => return Err(error).with_context(|| input.display().to_string()),
                Message::Event { job, choice, event } => self.on_event(job, choice, event)?,
            }
        }
        Ok(())
    }

    fn on_line(&mut self, line: RawLine) -> Result<()> {
        let place = Place { number: line.number, bytes: line.consumed };
        let parsed = match &line.text {
            Ok(text) => Line::parse(text, line.number),
            Err(too_long) => Err(LineError::new(None, "invalid_json", too_long.message())),
        };
        let job = parsed.and_then(|line| line.prepare(&self.tokenizer, &self.model_name, self.seed));
        match job {
            Ok(job) => self.submit(place, job),
            Err(error) => self.write_error(place, error),
        }
    }

    /// Submits every sequence of a request, or none.
    fn submit(&mut self, place: Place, job: Job) -> Result<()> {
        let number = self.next_job;
        self.next_job += 1;
        let flight = Flight { place, answer: job.answer, dropped: Arc::default() };
        for (choice, request) in job.requests.into_iter().enumerate() {
            let dropped = Arc::clone(&flight.dropped);
            let sink = Sink { job: number, choice, messages: self.messages.clone(), dropped };
            match self.engine.submit_with(request, sink) {
                Ok(()) => {}
                Err(EngineError::Stopped) => bail!(EngineError::Stopped),
                Err(error) => return self.refuse(flight, "invalid_request", error),
            }
        }
        self.jobs.insert(number, flight);
        Ok(())
    }

    fn on_event(&mut self, job: u64, choice: usize, event: Event) -> Result<()> {
        // What was refused or has failed may still have events under way.
        let Some(flight) = self.jobs.get_mut(&job) else { return Ok(()) };
        match event {
            Event::Token(token) => {
                self.progress.token();
                flight.answer.add_token(choice, token);
                Ok(())
            }
            Event::Finished { reason, usage } => {
                if flight.answer.finish(choice, reason, usage)
                    && let Some(flight) = self.jobs.remove(&job)
                {
                    self.write_answer(flight)?;
                }
                Ok(())
            }
            Event::Embedding { .. } => Ok(()),
            Event::Error(EngineError::Stopped) => bail!(EngineError::Stopped),
            Event::Error(error) => match self.jobs.remove(&job) {
                Some(flight) => self.refuse(flight, "server_error", error),
                None => Ok(()),
            },
        }
    }

    fn refuse(&mut self, flight: Flight, code: &'static str, error: EngineError) -> Result<()> {
        let Flight { place, answer, dropped } = flight;
        dropped.store(true, Ordering::Relaxed);
        self.write_error(place, LineError::new(Some(answer.custom_id), code, error.to_string()))
    }

    fn write_answer(&mut self, flight: Flight) -> Result<()> {
        let Flight { place, answer, .. } = flight;
        let usage = answer.usage();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let line = OutputLine::success(place.number, answer, &self.tokenizer, created);
        self.write(place, &line, Some(usage))
    }

    fn write_error(&mut self, place: Place, error: LineError) -> Result<()> {
        self.write(place, &OutputLine::error(place.number, error), None)
    }

    /// Writes a result and lets the reader bring the next line.
    fn write(&mut self, place: Place, line: &OutputLine, usage: Option<Usage>) -> Result<()> {
        self.output.write(line)?;
        self.progress.line(place.bytes, usage);
        // The reader is gone once the input has ended.
        let _ = self.permits.send(());
        Ok(())
    }
}

/// Sends a sequence's events to the main thread.
struct Sink {
    job: u64,
    choice: usize,
    messages: Sender<Message>,
    dropped: Arc<AtomicBool>,
}

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        // Nobody listens once the main thread has failed, and the process is about to end.
        let _ = self.messages.send(Message::Event { job: self.job, choice: self.choice, event });
    }

    fn is_closed(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Where results go, and its name in errors.
struct Output {
    writer: Writer,
    name: String,
}

enum Writer {
    File(File),
    Stdout(Stdout),
}

impl Output {
    /// Opens the file, or makes it. What it holds stays until it is cleared.
    fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self {
                writer: Writer::Stdout(std::io::stdout()),
                name: "standard output".to_owned(),
            });
        }
        let name = path.display().to_string();
        let file = File::options().write(true).create(true).truncate(false).open(path);
        Ok(Self { writer: Writer::File(file.with_context(|| name.clone())?), name })
    }

    fn clear(&self) -> Result<()> {
        match &self.writer {
            // Devices and pipes hold nothing.
            Writer::File(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
                file.set_len(0).with_context(|| self.name.clone())
            }
            _ => Ok(()),
        }
    }

    /// Writes a line at once and whole: whatever happens next, the output is of whole lines.
    fn write(&mut self, line: &OutputLine) -> Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let written = match &mut self.writer {
            Writer::File(file) => file.write_all(&text),
            Writer::Stdout(stdout) => stdout.write_all(&text).and_then(|()| stdout.flush()),
        };
        written.with_context(|| format!("writing {}", self.name))
    }
}

/// Creating the output would empty the input.
fn refuse_same_file(args: &Args) -> Result<()> {
    let (input, output) = (args.input_file.canonicalize(), args.output_file.canonicalize());
    if let (Ok(input), Ok(output)) = (input, output)
        && input == output
        && input.is_file()
    {
        bail!("{}: expected an output file other than the input", args.output_file.display());
    }
    Ok(())
}
