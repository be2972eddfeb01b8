//! `rustorch batch`: a file of requests in, a file of results out that survives a crash. The crate `batch` runs it; this module
//! has the options, the model and the output for people.

mod input;
mod progress;
mod signals;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use batch::{
    Compression, End, Errors, Existing, FileHash, Input, Manifest, Model, Options, Order, Output, Report,
    Shard, Totals, UnknownFields,
};
use clap::ValueEnum;
use rustorch_llama::{EngineHandle, Gguf, Grammars, Priority, Weights, demo};
use serde_json::{Value, json};

use self::input::{DefaultArgs, InputArgs};
use self::progress::Progress;
use self::signals::Signals;
use crate::model_args::{FileArgs, ModelArgs, Purpose, Started, TemplateArgs, parse_count};
use crate::model_facts::wide_activations;
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
    #[arg(short, long, value_name = "IN.jsonl")]
    input_file: PathBuf,
    /// JSON lines to write, or - for standard output, where nothing survives a crash
    #[arg(short, long, value_name = "OUT.jsonl")]
    output_file: PathBuf,
    /// Write results in the order of the input, not as they are finished
    #[arg(long)]
    ordered: bool,
    /// Answer only every N-th line, beginning with line I (from 1)
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE)]
    shard: Shard,
    /// Try lines again whose results are errors
    #[arg(long)]
    retry_errors: bool,
    /// Delete the results that OUT.jsonl has and start again
    #[arg(long)]
    overwrite: bool,
    /// Refuse lines with fields that nobody knows, instead of ignoring these
    #[arg(long)]
    strict_fields: bool,
    /// When the exit status is 1 although every line has its result
    #[arg(long, value_name = "WHEN", default_value = "any")]
    fail_on: FailOn,
    /// Where standard error is no terminal, say how far the run is every N seconds; 0 for never
    #[arg(long, value_name = "N", default_value_t = 30.0, value_parser = number("a number, 0 or more", |x| x >= 0.0))]
    progress_interval: f32,
    /// Name of the model, which requests may name; repeat for aliases, answers use the first [default: the file's name]
    #[arg(long, visible_alias = "alias", value_name = "NAME")]
    model_name: Vec<String>,
    /// Most lines in memory at once [default: 4 times the batch size]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    window: Option<NonZeroUsize>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    defaults: DefaultArgs,
    #[command(flatten)]
    model: ModelArgs,
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
/// Lines in memory at once, as a multiple of the batch size: enough that a free slot never waits for a line.
const WINDOW: NonZeroUsize = NonZeroUsize::new(4).expect("it is not 0");

pub fn run(args: &Args) -> Result<ExitCode> {
    note_pipe(&args.input_file, "writer");
    let format = args.input.format(&args.input_file);
    let input = Input::open(&args.input_file, format, Compression::Decompress)?;
    note_pipe(&args.output_file, "reader");
    let output = Output::open(&args.output_file)?;
    for read in args.model.file.paths().into_iter().chain([args.input_file.clone()]) {
        output.must_not_be(&read)?;
    }
    // Before the model is loaded, which may take minutes.
    let scan = input.scan(args.shard)?;
    let hash = output.is_durable().then(|| hash_model(&args.model.file));
    let started = args.model.start_engine(Purpose::Throughput, Some(&args.template))?;
    started.note(&args.model);
    let Started { engine, tokenizer, weights, fingerprint, pooling, .. } = started;
    let manifest = args.manifest(hash, &engine, &weights)?;

    // From here on a signal stops the run in good order.
    let signals = Signals::watch().context("signals")?;
    let existing = if args.overwrite { Existing::Replace } else { Existing::Resume };
    let errors = if args.retry_errors { Errors::Retry } else { Errors::Keep };
    let interval =
        Duration::try_from_secs_f32(args.progress_interval).ok().filter(|interval| !interval.is_zero());
    let mut progress = Progress::start(scan.as_ref().map(|scan| scan.bytes), interval);
    let mut journal = output.begin(manifest, existing, errors, scan)?;
    if journal.found().has_other_bits {
        progress.note(&format!(
            "warning: {}: results that it has may be of an older version, whose numbers can differ from this one's in the \
             last bits; --overwrite computes them again",
            args.output_file.display()
        ));
    }
    let names = args.names();
    let model = Model {
        tokenizer: &tokenizer,
        grammars: &Grammars::new(Arc::clone(&tokenizer)),
        names: &names,
        hidden_size: weights.config().hidden_size(),
        pooling,
        fingerprint: Some(&fingerprint),
        seed: args.model.run.seed.value,
        unknown_fields: unknown_fields(args.strict_fields),
        defaults: &args.defaults.defaults(),
    };
    let batch_size = NonZeroUsize::new(engine.stats().max_num_seqs).unwrap_or(NonZeroUsize::MIN);
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
    let ran = batch::run(
        &engine,
        &model,
        input,
        &mut journal,
        &args.options(batch_size),
        signals.stop(),
        &mut report,
    );
    let output = args.output_file.display();
    match ran {
        Ok((totals, end)) => {
            output::note(&progress.finish(&totals, batch_size));
            for error in &first_errors {
                output::note(&format!("error of {}", output::visible_line(error)));
            }
            if totals.errors > first_errors.len() as u64 {
                output::note(&format!(
                    "and {} more errors",
                    grouped(totals.errors - first_errors.len() as u64)
                ));
            }
            if end == End::Complete {
                return Ok(args.fail_on.exit_code(&totals));
            }
            let (signal, code) = signals.received();
            let done = grouped(totals.found.results + totals.results);
            output::note(&match journal.is_durable() {
                true => format!("stopped by {signal}; {output} has {done} results, the same command goes on"),
                false => format!("stopped by {signal} after {done} results"),
            });
            Ok(code)
        }
        Err(error) if journal.is_durable() => Err(anyhow!(
            "{error}\nhint: what {output} has is safe; when this is mended, the same command goes on from there"
        )),
        Err(error) => Err(error.into()),
    }
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
            window: self.window.unwrap_or(batch_size.saturating_mul(WINDOW)),
            order: if self.ordered { Order::OfInput } else { Order::AsFinished },
            shard: self.shard,
            priority: Priority::Normal,
        }
    }

    /// What the model is called.
    fn names(&self) -> Vec<String> {
        if self.model_name.is_empty() { vec![self.model.file.name()] } else { self.model_name.clone() }
    }

    /// Everything but the input that the results depend on.
    fn manifest(
        &self,
        hash: Option<JoinHandle<Result<FileHash>>>,
        engine: &EngineHandle,
        weights: &Weights,
    ) -> Result<Manifest> {
        let model_file = match hash {
            Some(hash) => {
                hash.join().map_err(|_| anyhow!("the model's hash: its thread ended by a panic"))??
            }
            // A stream has no manifest.
            None => FileHash { bytes: 0, sha256: String::new() },
        };
        let (name, unknown_fields) = (self.names().swap_remove(0), unknown_fields(self.strict_fields));
        let mut manifest = manifest(&self.model, name, model_file, engine, weights, unknown_fields);
        manifest.options.extend(template_option(&self.template));
        manifest.options.extend(self.defaults.options());
        manifest.options.insert("shard".to_owned(), json!(self.shard.to_string()));
        Ok(manifest)
    }
}

/// Everything but the input that results depend on with these options. Results do not depend on threads, batch size, chunk,
/// page size and window, and their order can be changed later.
pub fn manifest(
    args: &ModelArgs,
    model: String,
    model_file: FileHash,
    engine: &EngineHandle,
    weights: &Weights,
    unknown_fields: UnknownFields,
) -> Manifest {
    let config = weights.config();
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
    let options = [
        // A random seed is another one when the run goes on.
        ("seed", if args.run.seed.is_random { json!(-1) } else { json!(args.run.seed.value) }),
        ("ctx", json!(config.max_seq_len)),
        // A smaller pool refuses longer requests.
        ("longest", json!(engine.max_seq_tokens())),
        ("kv_type", json!(name(args.run.kv_type.to_possible_value()))),
        ("attention", json!(name(args.run.attention.to_possible_value()))),
    ];
    // The defaults of what follows are not written, so that runs of versions without the option go on.
    let wide = wide_activations(weights).map(|activations| ("activations", json!(activations.bits())));
    // Refusals are results.
    let strict = (unknown_fields == UnknownFields::Refuse).then(|| ("strict_fields", json!(true)));
    Manifest {
        format: Manifest::FORMAT,
        rustorch: env!("CARGO_PKG_VERSION").to_owned(),
        model,
        model_file,
        input: None,
        device: weights.numeric_path(),
        options: options
            .into_iter()
            .chain(wide)
            .chain(strict)
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

/// The option of a manifest that names another chat template than the model's.
pub fn template_option(args: &TemplateArgs) -> Option<(String, Value)> {
    args.hash().map(|hash| ("chat_template".to_owned(), json!(hash)))
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
