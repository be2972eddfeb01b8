//! `rustorch batch`: a file of requests in, a file of results out, in bounded memory.
//!
//! A reader thread parses lines as places come free, so at most a few times the batch is held at once. The main thread
//! tokenises, submits, gathers events and writes each result the moment its request ends.

mod api;
mod request;
mod response;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustorch_llama::{EngineHandle, Event, EventSink, Tokenizer};

use self::request::{Job, Line, LineError};
use self::response::{Answer, OutputLine};
use crate::model_args::ModelArgs;
use crate::output;

/// Run a file of requests (OpenAI batch format) through the model
///
/// Each input line is a request for /v1/completions or /v1/chat/completions in OpenAI's batch format, or a plain object
/// with "prompt" or "messages" and the same fields. Each gives one output line, in the order in which they finish. A line
/// that cannot be served gives an output line with an error and costs nothing else.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// JSON lines to read, or - for standard input
    #[arg(short, long, value_name = "IN.jsonl")]
    input_file: PathBuf,
    /// JSON lines to write, or - for standard output; an existing file is replaced
    #[arg(short, long, value_name = "OUT.jsonl")]
    output_file: PathBuf,
}

/// Requests held at once, as a multiple of the batch: enough that a free place in the batch never waits for a line.
const WINDOW: usize = 4;

/// What reaches the main thread.
enum Message {
    Line { number: usize, bytes: usize, parsed: Result<Line, LineError> },
    EndOfInput,
    ReadFailed(std::io::Error),
    Event { job: u64, choice: usize, event: Event },
}

pub fn run(args: Args) -> Result<()> {
    let (input, input_len) = open_input(&args.input_file)?;
    refuse_same_file(&args)?;
    let (engine, tokenizer, weights) = args.model.start_engine()?;
    let output = create_output(&args.output_file)?;
    let window = WINDOW * weights.config().batch_size;

    let (messages, receiver) = mpsc::channel();
    let (permits, allowed) = mpsc::channel();
    for _ in 0..window {
        let _ = permits.send(());
    }
    let lines = messages.clone();
    thread::Builder::new()
        .name("batch-reader".to_owned())
        .spawn(move || read_lines(input, &lines, &allowed))?;

    let mut run = Run {
        engine,
        tokenizer,
        model_name: args.model.file.name(),
        seed: args.model.seed,
        messages,
        permits,
        output,
        jobs: HashMap::new(),
        next_job: 0,
        bar: progress_bar(input_len),
        started: Instant::now(),
        totals: Totals::default(),
    };
    run.serve(&receiver)?;
    run.bar.finish_and_clear();
    output::note(&run.totals.summary(run.started.elapsed().as_secs_f64()));
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
    output: Box<dyn Write>,
    /// Requests in flight, by job number.
    jobs: HashMap<u64, Flight>,
    next_job: u64,
    bar: ProgressBar,
    started: Instant,
    totals: Totals,
}

/// A request in flight.
struct Flight {
    number: usize,
    bytes: usize,
    answer: Answer,
}

#[derive(Default)]
struct Totals {
    requests: u64,
    errors: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Run {
    fn serve(&mut self, receiver: &Receiver<Message>) -> Result<()> {
        let mut input_ended = false;
        while !(input_ended && self.jobs.is_empty()) {
            let message = receiver.recv().context("the engine has stopped")?;
            match message {
                Message::Line { number, bytes, parsed } => match self.submit(number, bytes, parsed) {
                    Ok(()) => {}
                    Err(error) => self.finish(number, bytes, OutputLine::error(number, error))?,
                },
                Message::EndOfInput => input_ended = true,
                Message::ReadFailed(error) => return Err(error).context("reading the input"),
                Message::Event { job, choice, event } => self.on_event(job, choice, event)?,
            }
        }
        self.output.flush().context("writing the output")?;
        Ok(())
    }

    /// Submits every sequence of a line's request.
    fn submit(
        &mut self,
        number: usize,
        bytes: usize,
        parsed: Result<Line, LineError>,
    ) -> Result<(), LineError> {
        let line = parsed?;
        let Job { answer, requests } = line.prepare(&self.tokenizer, &self.model_name, self.seed)?;
        let job = self.next_job;
        self.next_job += 1;
        let custom_id = answer.custom_id.clone();
        self.jobs.insert(job, Flight { number, bytes, answer });
        for (choice, request) in requests.into_iter().enumerate() {
            let sink = Sink { job, choice, messages: self.messages.clone() };
            if let Err(error) = self.engine.submit_with(request, sink) {
                // Choices already submitted go on; their events find no job and are dropped.
                self.jobs.remove(&job);
                return Err(LineError::new(Some(custom_id), "invalid_request", error.to_string()));
            }
        }
        Ok(())
    }

    fn on_event(&mut self, job: u64, choice: usize, event: Event) -> Result<()> {
        let Some(flight) = self.jobs.get_mut(&job) else { return Ok(()) };
        let finished = match event {
            Event::Token(token) => {
                self.totals.completion_tokens += 1;
                flight.answer.add_token(choice, token);
                false
            }
            Event::Finished { reason, usage } => flight.answer.finish(choice, reason, usage),
            Event::Error(error) => {
                let Some(Flight { number, bytes, answer }) = self.jobs.remove(&job) else { return Ok(()) };
                let error = LineError::new(Some(answer.custom_id), "server_error", error.to_string());
                return self.finish(number, bytes, OutputLine::error(number, error));
            }
        };
        if finished && let Some(Flight { number, bytes, answer }) = self.jobs.remove(&job) {
            self.totals.prompt_tokens += answer.prompt_tokens() as u64;
            let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            let line = OutputLine::success(number, answer, &self.tokenizer, created);
            self.finish(number, bytes, line)?;
        }
        Ok(())
    }

    /// Writes a result and lets the reader bring the next line.
    fn finish(&mut self, number: usize, bytes: usize, line: OutputLine) -> Result<()> {
        let mut text = serde_json::to_string(&line).with_context(|| format!("line {number}"))?;
        text.push('\n');
        self.output.write_all(text.as_bytes()).context("writing the output")?;
        self.output.flush().context("writing the output")?;
        self.totals.requests += 1;
        self.totals.errors += u64::from(line.is_error());
        // The reader is gone once the input has ended.
        let _ = self.permits.send(());
        self.bar.inc(bytes as u64);
        let rate = self.totals.completion_tokens as f64 / self.started.elapsed().as_secs_f64();
        self.bar.set_message(format!("{} requests, {rate:.0} tokens/s", self.totals.requests));
        Ok(())
    }
}

impl Totals {
    fn summary(&self, seconds: f64) -> String {
        format!(
            "{} requests, {} errors, {} prompt tokens, {} generated in {seconds:.1} s: {:.1} tokens/s",
            output::grouped(self.requests),
            output::grouped(self.errors),
            output::grouped(self.prompt_tokens),
            output::grouped(self.completion_tokens),
            self.completion_tokens as f64 / seconds.max(1e-9)
        )
    }
}

/// Sends a sequence's events to the main thread.
struct Sink {
    job: u64,
    choice: usize,
    messages: Sender<Message>,
}

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        // Nobody listens once the main thread has failed, and the process is about to end.
        let _ = self.messages.send(Message::Event { job: self.job, choice: self.choice, event });
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// Reads and parses a line for each permit.
fn read_lines(mut input: Box<dyn BufRead + Send>, messages: &Sender<Message>, permits: &Receiver<()>) {
    let mut buffer = Vec::new();
    let mut number = 0;
    while permits.recv().is_ok() {
        let message = loop {
            buffer.clear();
            number += 1;
            match input.read_until(b'\n', &mut buffer) {
                Err(error) => break Message::ReadFailed(error),
                Ok(0) => break Message::EndOfInput,
                // Blank lines are no requests.
                Ok(_) if buffer.trim_ascii().is_empty() => continue,
                Ok(bytes) => break Message::Line { number, bytes, parsed: Line::parse(&buffer, number) },
            }
        };
        let ended = !matches!(message, Message::Line { .. });
        if messages.send(message).is_err() || ended {
            return;
        }
    }
}

fn open_input(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let len = file.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
    Ok((Box::new(BufReader::new(file)), len))
}

fn create_output(path: &Path) -> Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdout()));
    }
    let file = File::create(path).with_context(|| path.display().to_string())?;
    Ok(Box::new(file))
}

/// Creating the output would empty the input.
fn refuse_same_file(args: &Args) -> Result<()> {
    let (input, output) = (args.input_file.canonicalize(), args.output_file.canonicalize());
    if let (Ok(input), Ok(output)) = (input, output)
        && input == output
    {
        bail!("{}: expected an output file other than the input", args.output_file.display());
    }
    Ok(())
}

/// On a terminal: the share of the input's bytes that is done, and the time left.
fn progress_bar(input_len: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match input_len {
        Some(len) => ProgressBar::new(len).with_style(
            ProgressStyle::with_template("{bar:30} {percent}% {msg}, {eta} left")
                .expect("the template is valid"),
        ),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is valid"),
        ),
    }
}
