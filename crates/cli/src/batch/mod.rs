//! `rustorch batch`: a file of requests in, a file of results out that survives a crash. The crate `batch` runs it; this module
//! has the options, the model and the output for people.

mod answering;
mod input;
mod job;
mod progress;
mod signals;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use batch::{
    Begun, Compression, Defaults, End, Errors, Existing, FileHash, Input, Options, Order, Report, Settings,
    Shard, Totals, UnknownFields, Work,
};
use clap::ValueEnum;
use rustorch_llama::{EngineHandle, Gguf, Priority, Weights, demo};

use self::answering::{Answering, Ready};
use self::input::InputArgs;
pub use self::job::{MergeArgs, SplitArgs, VerifyArgs};
pub use self::job::{merge, split, verify};
use self::progress::Progress;
use self::signals::Signals;
use crate::model_args::{FileArgs, ModelArgs, parse_count, parse_whole};
use crate::output::{self, grouped};
use crate::sampling_args::number;

/// Run a file of requests (OpenAI batch format) through the model
///
/// Each input line is a request for /v1/completions, /v1/chat/completions or /v1/embeddings in OpenAI's batch format, or a
/// plain object with "prompt", "messages" or "input" and the same fields. In a .txt file it is a prompt, in a .csv file a
/// row has one. Each gives one output line. A line that cannot
/// be served gives an output line with an error that names its number; the other lines are answered.
///
/// A result is on disk before it counts as done. If a run was stopped, killed or cut off, the same command continues it: it
/// repairs the output and answers the remaining lines, and those that were changed or added since. OUT.jsonl.run.json records
/// what else the results depend on; a command that differs in any of it is refused. The exit status is 1 if a
/// line has an error (see --fail-on). On SIGINT or SIGTERM the running step is finished and complete results are
/// written (exit status 130 or 143); a second signal ends the program at once.
///
/// docs/serving.md lists the fields that have an effect. A request without a seed gets one from its custom_id and --seed: the
/// same in any file. A field that nobody knows is an error in a plain line; in OpenAI's format it has no effect and is
/// named once on standard error.
#[derive(clap::Args)]
pub struct Args {
    /// Requests to read, or - for standard input; compressed with gzip or Zstandard or not
    #[arg(short, long, value_name = "IN.jsonl", required_unless_present = "job")]
    input_file: Option<PathBuf>,
    /// JSON lines to write, or - for standard output, where nothing survives a crash; a name in .csv or .txt for a table or a text a
    /// line, made at the end of OUT.csv.jsonl
    #[arg(short, long, value_name = "OUT.jsonl", required_unless_present = "job")]
    output_file: Option<PathBuf>,
    /// Answer a part of the job that `rustorch split` made in this folder, reproducibly, into the folder
    #[arg(long, value_name = "DIR", requires = "part")]
    #[arg(conflicts_with_all = ["input_file", "output_file", "shard", "overwrite", "input_format"])]
    job: Option<PathBuf>,
    /// Which part, from 0: $SLURM_ARRAY_TASK_ID or $JOB_COMPLETION_INDEX; one that has its results is left as it is
    #[arg(long, value_name = "K", requires = "job", value_parser = parse_whole::<usize>)]
    #[arg(conflicts_with_all = ["input_file", "output_file"])]
    part: Option<usize>,
    /// Write the same bytes for the same line whenever, wherever and beside whatever it is answered, in the order of the input
    #[arg(long)]
    reproducible: bool,
    /// Write results in the order of the input, not as they are finished
    #[arg(long)]
    ordered: bool,
    /// Answer only every N-th line, beginning with line I (from 1)
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE)]
    shard: Shard,
    /// Try lines again whose results are errors
    #[arg(long, conflicts_with_all = ["reproducible", "job"])]
    retry_errors: bool,
    /// Delete the results that OUT.jsonl has and start again
    #[arg(long)]
    overwrite: bool,
    /// When the exit status is 1 although every line has its result [default: any; with --job never]
    #[arg(long, value_name = "WHEN")]
    fail_on: Option<FailOn>,
    /// Where standard error is no terminal, say how far the run is every N seconds; 0 for never
    #[arg(long, value_name = "N", default_value_t = 30.0, value_parser = number("a number, 0 or more", |x| x >= 0.0))]
    progress_interval: f32,
    /// Most lines in memory at once [default: 4 times the batch size]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    window: Option<NonZeroUsize>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    pub answering: Answering,
}

/// Which errors of lines make a run fail.
#[derive(ValueEnum, Clone, Copy)]
enum FailOn {
    /// A line has an error
    Any,
    /// Every line has an error
    All,
    /// Errors of lines do not matter
    Never,
}

/// Errors of lines that are shown at the end.
const SHOWN_ERRORS: usize = 3;
pub fn run(args: &Args) -> Result<ExitCode> {
    // Before the model is loaded, which may take minutes.
    let work = match (&args.job, args.part) {
        (Some(folder), Some(index)) => job::work(folder, index)?,
        _ => Some(args.work()?),
    };
    let Some(work) = work else { return Ok(ExitCode::SUCCESS) };
    let name = work.name().to_owned();
    let hash = work.is_durable().then(|| hash_model(&args.answering.model.file));
    let ready = args.answering.start(args.is_reproducible())?;
    ready.started.note(&args.answering.model);
    let manifest = args.answering.manifest(hash, &ready, args.shard(), args.is_reproducible())?;

    // From here on a signal stops the run in good order.
    let signals = Signals::watch().context("signals")?;
    let existing = if args.overwrite { Existing::Replace } else { Existing::Resume };
    let errors = if args.retry_errors { Errors::Retry } else { Errors::Keep };
    let interval =
        Duration::try_from_secs_f32(args.progress_interval).ok().filter(|interval| !interval.is_zero());
    let progress = Progress::start(work.scan().map(|scan| scan.bytes), interval);
    let begun = work.begin(manifest, existing, errors)?;
    if begun.found().has_other_bits {
        progress.note(&format!(
            "warning: {name}: results that it has may be of an older version, whose numbers can differ from this one's in the \
             last bits; --overwrite computes them again"
        ));
    }
    let is_durable = begun.is_durable();
    let (totals, end) = answer(args, &ready, begun, progress, &signals, &name)?;
    if end == End::Complete {
        return Ok(args.fail_on().exit_code(&totals));
    }
    let (signal, code) = signals.received();
    let done = grouped(totals.found.results + totals.results);
    output::note(&match is_durable {
        true => format!("stopped by {signal}; {name} has {done} results, the same command goes on"),
        false => format!("stopped by {signal} after {done} results"),
    });
    Ok(code)
}

/// Answers what has no result, with progress and errors for people.
fn answer(
    args: &Args,
    ready: &Ready,
    begun: Begun,
    mut progress: Progress,
    signals: &Signals,
    name: &str,
) -> Result<(Totals, End)> {
    let batch_size =
        NonZeroUsize::new(ready.started.engine.stats().max_num_seqs).unwrap_or(NonZeroUsize::MIN);
    let mut first_errors = Vec::new();
    let mut report = |report: Report<'_>| match report {
        Report::Totals(totals) => progress.update(totals),
        Report::Error { custom_id, message } if first_errors.len() < SHOWN_ERRORS => {
            first_errors.push(format!("{custom_id}: {message}"));
        }
        Report::Error { .. } => {}
        Report::IgnoredField { name, line } => {
            progress
                .note(&format!("warning: line {line}: the field {name:?} is not known and has no effect"));
        }
    };
    let (engine, options) = (&ready.started.engine, args.options(batch_size));
    let is_durable = begun.is_durable();
    let ran = begun.run(engine, &ready.model(), &options, signals.stop(), &mut report);
    let (totals, end) = match ran {
        Ok(ran) => ran,
        Err(error) if is_durable => {
            return Err(anyhow!(
                "{error}\nhint: what {name} has is safe; when this is mended, the same command goes on from there"
            ));
        }
        Err(error) => return Err(error.into()),
    };
    output::note(&progress.finish(&totals, batch_size));
    for error in &first_errors {
        output::note(&format!("error of {}", output::visible_line(error)));
    }
    if totals.errors > first_errors.len() as u64 {
        output::note(&format!("and {} more errors", grouped(totals.errors - first_errors.len() as u64)));
    }
    Ok((totals, end))
}

/// Says what a run waits for that opens a named pipe.
fn note_pipe(path: &Path, other_end: &str) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            output::note(&format!("{} is a named pipe: waiting for its {other_end}", path.display()));
        }
    }
}

impl FailOn {
    fn exit_code(self, totals: &Totals) -> ExitCode {
        let errors = totals.found.errors + totals.errors;
        let results = totals.found.results + totals.results;
        let has_failed = match self {
            Self::Any => errors > 0,
            Self::All => errors > 0 && errors == results,
            Self::Never => false,
        };
        if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

impl Args {
    fn options(&self, batch_size: NonZeroUsize) -> Options {
        Options {
            window: self.window.unwrap_or_else(|| Options::window_of(batch_size)),
            order: if self.ordered { Order::OfInput } else { Order::AsFinished },
            shard: self.shard(),
            priority: Priority::Normal,
        }
    }

    fn shard(&self) -> Shard {
        // A part is answered whole, whatever a configuration file says.
        if self.job.is_some() { Shard::WHOLE } else { self.shard }
    }

    fn is_reproducible(&self) -> bool {
        self.reproducible || self.job.is_some()
    }

    fn fail_on(&self) -> FailOn {
        // Whoever starts workers again that fail would do so in vain.
        let default = if self.job.is_some() { FailOn::Never } else { FailOn::Any };
        self.fail_on.unwrap_or(default)
    }

    /// Opens the files.
    fn work(&self) -> Result<Work> {
        let [input_file, output_file] =
            [&self.input_file, &self.output_file].map(|path| path.clone().unwrap_or_default());
        note_pipe(&input_file, "writer");
        let input = Input::open(&input_file, self.input.format(&input_file), Compression::Decompress)?;
        note_pipe(&output_file, "reader");
        let model = self.answering.model.file.paths();
        Ok(Work::of_file(input, &output_file, self.shard(), &model)?)
    }
}

/// What results depend on with these options.
pub fn settings<'a>(
    args: &ModelArgs,
    engine: &'a EngineHandle,
    weights: &'a Weights,
    unknown_fields: UnknownFields,
    defaults: &'a Defaults,
) -> Settings<'a> {
    let seed = args.run.seed;
    Settings {
        weights,
        engine,
        attention: args.run.attention.mode(),
        chat_template: None,
        day: None,
        seed: (!seed.is_random).then_some(seed.value),
        unknown_fields,
        defaults,
        shard: None,
        reproducible: false,
    }
}

/// What `--strict-fields` means.
pub fn unknown_fields(is_strict: bool) -> UnknownFields {
    if is_strict { UnknownFields::Refuse } else { UnknownFields::Report }
}

/// Hashes the model's file while it is loaded.
pub fn hash_model(file: &FileArgs) -> JoinHandle<Result<FileHash>> {
    let file = file.clone();
    thread::spawn(move || {
        if file.is_demo() {
            return Ok(FileHash::of_bytes(demo::BYTES));
        }
        // What is odd about it is told by whoever runs it.
        Ok(FileHash::of_files(Gguf::open(&file.model)?.paths())?)
    })
}
