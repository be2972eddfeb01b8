//! Files of requests, answered as `rustorch batch` does it: crate `batch` runs them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use batch::{
    Compression, Day, DefaultFields, Defaults, End, Errors, Existing, FileHash, Input, InputFormat,
    Irreproducible, Job, Manifest, Order, Report, Settings, Shard, Totals, Work,
};
use openai::UnknownFields;
use pyo3::prelude::*;
use rustorch_llama::{AttentionMode, Grammars, Priority, Tokenizer, demo};

use crate::error::{EngineError, bad_argument, of_batch};
use crate::load::{Loaded, counted};

/// The package has no other.
const ATTENTION: AttentionMode = AttentionMode::Fused;

/// How often the progress is told and signals such as Ctrl-C are looked for.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// What is answered, and how: a dictionary of the arguments of `LLM.run_batch` and `LLM.run_job_part`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct BatchOptions {
    /// A file and its results, or a job and a part.
    paths: (PathBuf, Option<PathBuf>),
    part: Option<usize>,
    shard: String,
    reproducible: bool,
    ordered: bool,
    retry_errors: bool,
    overwrite: bool,
    seed: u64,
    window: Option<usize>,
    model_names: Vec<String>,
    date: Option<String>,
    strict_fields: bool,
    input_format: Option<String>,
    prompt_column: String,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    stop: Vec<String>,
    chat: bool,
    system: Option<String>,
}

/// What became of a batch.
#[pyclass(frozen, get_all, module = "rustorch_llama._rustorch")]
#[derive(Default)]
pub struct BatchSummary {
    /// Results that the output has.
    results: u64,
    /// Of these, those that are errors.
    errors: u64,
    /// Results that earlier runs had left.
    found: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    generated_tokens: u64,
    /// Ids and messages of the first errors of this run.
    first_errors: Vec<(String, String)>,
    warnings: Vec<String>,
}

/// What lines are read and answered with.
struct Answering<'a> {
    loaded: &'a Loaded,
    day: Option<Day>,
    defaults: Defaults,
    unknown_fields: UnknownFields,
    shard: Shard,
}

/// The hash of the model's file, once it is known.
pub type ModelHash = OnceLock<FileHash>;

impl BatchOptions {
    /// Answers it. `None` for a part that has its results. `progress` is called with the results that are there and the lines in all.
    pub fn run(
        &self,
        loaded: &Loaded,
        hash: &ModelHash,
        progress: Option<&Py<PyAny>>,
    ) -> PyResult<Option<BatchSummary>> {
        let answering = self.answering(loaded)?;
        let settings = answering.settings(self);
        if self.is_reproducible() {
            let free = settings.must_be_reproducible().and_then(|()| answering.must_not_read_clock());
            free.map_err(irreproducible)?;
        }
        let work = self.work(answering.shard, &loaded.model_files());
        let Some(work) = work.map_err(|error| of_batch(&error, None))? else { return Ok(None) };
        let manifest = self.manifest(&settings, loaded, hash).map_err(|error| of_batch(&error, None))?;
        self.answer(&answering, work, manifest, progress).map(Some)
    }

    fn is_reproducible(&self) -> bool {
        self.reproducible || self.part.is_some()
    }

    fn answering<'a>(&self, loaded: &'a Loaded) -> PyResult<Answering<'a>> {
        let shard: Shard = self.shard.parse().map_err(|error| bad_argument("shard", error))?;
        let day = self.date.as_deref().map(str::parse).transpose();
        let day = day.map_err(|error: String| bad_argument("date", error))?;
        let unknown_fields = if self.strict_fields { UnknownFields::Refuse } else { UnknownFields::Report };
        Ok(Answering { loaded, day, defaults: self.defaults()?, unknown_fields, shard })
    }

    fn defaults(&self) -> PyResult<Defaults> {
        let check = |name, value: Option<f32>, expected: &str, permits: fn(f32) -> bool| match value {
            Some(found) if !(found.is_finite() && permits(found)) => {
                Err(bad_argument(name, format_args!("expected {expected}, found {found}")))
            }
            value => Ok(value),
        };
        let is_probability = |x: f32| (0.0..=1.0).contains(&x);
        const PROBABILITY: &str = "a number from 0 to 1";
        let fields = DefaultFields {
            max_tokens: counted("max_tokens", self.max_tokens)?,
            temperature: check("temperature", self.temperature, "a number, 0 or more", |x| x >= 0.0)?,
            top_p: check("top_p", self.top_p, PROBABILITY, is_probability)?,
            top_k: self.top_k,
            min_p: check("min_p", self.min_p, PROBABILITY, is_probability)?,
            stop: self.stop.clone(),
        };
        if self.stop.iter().any(String::is_empty) {
            return Err(bad_argument("stop", "expected texts, found an empty one"));
        }
        Ok(Defaults { fields: fields.into(), is_chat: self.chat, system: self.system.clone() })
    }

    fn format(&self, path: &Path) -> Result<InputFormat, batch::Error> {
        Ok(match self.input_format.as_deref() {
            Some("jsonl") => InputFormat::JsonLines,
            Some("text") => InputFormat::Text,
            Some("csv") => InputFormat::Csv { prompt_column: self.prompt_column.clone() },
            // `LLM.run_batch` has refused others.
            _ => InputFormat::by_name(path, &self.prompt_column),
        })
    }

    fn work(&self, shard: Shard, model_files: &[PathBuf]) -> Result<Option<Work>, batch::Error> {
        match (&self.paths, self.part) {
            ((job, _), Some(part)) => Work::of_part(Job::open(job)?, part),
            ((input, output), None) => {
                let input = Input::open(input, self.format(input)?, Compression::Decompress)?;
                let output = output.as_deref().unwrap_or_else(|| Path::new(""));
                Work::of_file(input, output, shard, model_files).map(Some)
            }
        }
    }

    fn manifest(
        &self,
        settings: &Settings<'_>,
        loaded: &Loaded,
        hash: &ModelHash,
    ) -> Result<Manifest, batch::Error> {
        let hash = match hash.get() {
            Some(hash) => hash,
            None => {
                let files = loaded.model_files();
                let found = match files.is_empty() {
                    true => FileHash::of_bytes(demo::BYTES),
                    false => FileHash::of_files(&files)?,
                };
                hash.get_or_init(|| found)
            }
        };
        Ok(settings.manifest(self.model_names[0].clone(), hash.clone()))
    }

    fn options(&self, loaded: &Loaded, shard: Shard) -> PyResult<batch::Options> {
        let num_seqs = NonZeroUsize::new(loaded.handle.stats().max_num_seqs).unwrap_or(NonZeroUsize::MIN);
        let window = counted("window", self.window)?;
        Ok(batch::Options {
            window: window.unwrap_or_else(|| batch::Options::window_of(num_seqs)),
            order: if self.ordered { Order::OfInput } else { Order::AsFinished },
            shard,
            priority: Priority::Normal,
        })
    }

    fn answer(
        &self,
        answering: &Answering<'_>,
        work: Work,
        manifest: Manifest,
        progress: Option<&Py<PyAny>>,
    ) -> PyResult<BatchSummary> {
        let loaded = answering.loaded;
        let options = self.options(loaded, answering.shard)?;
        let tokenizer = answering.tokenizer()?;
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        let time = answering.day.as_ref().map(Day::begin);
        let fingerprint = batch::fingerprint(&loaded.gguf, &loaded.weights, ATTENTION, None, time);
        let model = batch::Model {
            tokenizer: &tokenizer,
            grammars: &grammars,
            names: &self.model_names,
            hidden_size: loaded.weights.config().hidden_size(),
            pooling: loaded.pooling,
            fingerprint: Some(&fingerprint),
            seed: self.seed,
            unknown_fields: answering.unknown_fields,
            defaults: &answering.defaults,
        };
        let existing = if self.overwrite { Existing::Replace } else { Existing::Resume };
        let errors = if self.retry_errors { Errors::Retry } else { Errors::Keep };
        let (name, lines) = (work.name().to_owned(), work.scan().map(|scan| scan.lines));
        let begun = work.begin(manifest, existing, errors).map_err(|error| of_batch(&error, None))?;
        let mut summary = BatchSummary::default();
        if begun.found().has_other_bits {
            summary.warnings.push(format!(
                "{name}: results that it has may be of an older version, whose numbers can differ from this one's in the last \
                 bits; overwrite=True computes them again"
            ));
        }
        let is_durable = begun.is_durable();
        let mut watch = Watch { progress, lines, told: Instant::now() };
        let (stop, mut interrupted) = (AtomicBool::new(false), None);
        let ran = begun.run(&loaded.handle, &model, &options, &stop, &mut |report| match report {
            Report::Totals(totals) => {
                if let Err(error) = watch.look(totals) {
                    stop.store(true, Ordering::Relaxed);
                    interrupted.get_or_insert(error);
                }
            }
            Report::Error { custom_id, message } => {
                summary.first_errors.push((custom_id.to_owned(), message.to_owned()));
            }
            Report::IgnoredField { name, line } => {
                let warning = format!("line {line}: the field {name:?} is not known and has no effect");
                summary.warnings.push(warning);
            }
        });
        let (totals, end) = ran.map_err(|error| {
            let hint = "is safe; when this is mended, the same call goes on from there";
            of_batch(&error, is_durable.then(|| format!("\nhint: what {name} has {hint}")))
        })?;
        watch.tell(&totals)?;
        match (interrupted, end) {
            (Some(error), _) => Err(error),
            (None, End::Stopped) => Err(EngineError::new_err("the engine has stopped")),
            (None, End::Complete) => Ok(summary.with(&totals)),
        }
    }
}

#[pymethods]
impl BatchSummary {
    fn __repr__(&self) -> String {
        let Self { results, errors, found, prompt_tokens, cached_tokens, generated_tokens, .. } = self;
        format!(
            "BatchSummary(results={results}, errors={errors}, found={found}, prompt_tokens={prompt_tokens}, \
             cached_tokens={cached_tokens}, generated_tokens={generated_tokens})"
        )
    }
}

impl BatchSummary {
    fn with(self, totals: &Totals) -> Self {
        let found = totals.found;
        Self {
            results: found.results + totals.results,
            errors: found.errors + totals.errors,
            found: found.results,
            prompt_tokens: totals.prompt_tokens,
            cached_tokens: totals.cached_tokens,
            generated_tokens: totals.generated_tokens,
            ..self
        }
    }
}

impl Answering<'_> {
    fn settings<'a>(&'a self, options: &BatchOptions) -> Settings<'a> {
        let is_part = options.part.is_some();
        Settings {
            weights: &self.loaded.weights,
            engine: &self.loaded.handle,
            attention: ATTENTION,
            chat_template: None,
            day: self.day.as_ref(),
            seed: Some(options.seed),
            unknown_fields: self.unknown_fields,
            defaults: &self.defaults,
            shard: Some(if is_part { Shard::WHOLE } else { self.shard }),
            reproducible: options.is_reproducible(),
        }
    }

    /// Refuses a chat template that would be told what time it is.
    fn must_not_read_clock(&self) -> Result<(), Irreproducible> {
        let tokenizer = &self.loaded.tokenizer;
        let templates = [tokenizer.chat_template(), tokenizer.tool_template()];
        let reads_clock = templates.into_iter().flatten().any(|template| template.reads_clock());
        if reads_clock && self.day.is_none() { Err(Irreproducible::Clock) } else { Ok(()) }
    }

    /// The model's, whose chat templates are told the day that was given.
    fn tokenizer(&self) -> PyResult<Arc<Tokenizer>> {
        let Some(day) = &self.day else { return Ok(Arc::clone(&self.loaded.tokenizer)) };
        let tokenizer = Tokenizer::from_gguf(&self.loaded.gguf);
        let tokenizer = tokenizer.map_err(|error| EngineError::new_err(error.to_string()))?;
        Ok(Arc::new(tokenizer.with_template_time(day.begin())))
    }
}

/// Tells the progress, and looks for signals such as Ctrl-C.
struct Watch<'a> {
    progress: Option<&'a Py<PyAny>>,
    /// Lines in all, if the input is a regular file.
    lines: Option<u64>,
    told: Instant,
}

impl Watch<'_> {
    /// Now and then.
    fn look(&mut self, totals: &Totals) -> PyResult<()> {
        if self.told.elapsed() < REPORT_EVERY {
            return Ok(());
        }
        self.told = Instant::now();
        Python::attach(|py| py.check_signals())?;
        self.tell(totals)
    }

    fn tell(&self, totals: &Totals) -> PyResult<()> {
        let Some(progress) = self.progress else { return Ok(()) };
        let done = totals.found.results + totals.results;
        Python::attach(|py| progress.call1(py, (done, self.lines))).map(drop)
    }
}

fn irreproducible(error: Irreproducible) -> PyErr {
    let hint = match error {
        Irreproducible::Clock => "say which day it is with date=\"YYYY-MM-DD\"",
        Irreproducible::Seed | Irreproducible::Pages { .. } => "lower max_model_len or max_num_seqs",
    };
    bad_argument("reproducible", format_args!("{error}\nhint: {hint}"))
}
