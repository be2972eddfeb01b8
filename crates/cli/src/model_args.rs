//! The options that every command that runs a model shares.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use batch::FileHash;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustorch_llama::{
    Activations, AttentionMode, BatchSize, CpuOptions, Device, Devices, EngineConfig, EngineHandle, Gguf,
    GpuOptions, Isa, KvDtype, LlamaConfig, LlamaModel, LoadOptions, MatrixUnits, Pooling, PrefixCache,
    Profile, Subgroups, Tokenizer, Weights, demo,
};
use server::ModelFile;

use crate::{model_facts, output};

/// The model's file.
#[derive(clap::Args, Clone)]
pub struct FileArgs {
    /// GGUF file (of a split model, its first part), the https:// URL of one, or `demo` for the embedded demo model
    #[arg(short, long, value_name = "PATH", default_value = "demo")]
    pub model: PathBuf,
    /// Model of the Hugging Face hub, fetched unless it is in the cache: USER/REPO, or USER/REPO:QUANT such as :Q8_0 [default QUANT:
    /// Q4_K_M, or else the repository's first GGUF file] (-hf)
    #[arg(long, value_name = "USER/REPO[:QUANT]")]
    pub hf_repo: Option<String>,
    /// File of the repository, instead of a quantisation (-hff)
    #[arg(long, value_name = "FILE", requires = "hf_repo")]
    pub hf_file: Option<String>,
    /// Fetch no model: take it from the cache, or fail
    #[arg(long)]
    pub offline: bool,
}

impl FileArgs {
    pub fn is_demo(&self) -> bool {
        self.model == Path::new("demo")
    }

    pub fn open(&self) -> Result<Gguf> {
        if self.is_demo() {
            return Ok(demo::gguf());
        }
        let gguf = Gguf::open(&self.model)?;
        for (part, target) in gguf.parts_elsewhere() {
            let (part, target) = (part.display(), target.display());
            output::note(&format!("warning: {part} is a link out of the model's folder, to {target}"));
        }
        Ok(gguf)
    }

    /// The files that it is read from, if they can be: a split model has several, the embedded one none.
    pub fn paths(&self) -> Vec<PathBuf> {
        match Gguf::open(&self.model) {
            _ if self.is_demo() => Vec::new(),
            Ok(gguf) => gguf.paths().to_vec(),
            Err(_) => vec![self.model.clone()],
        }
    }

    /// The model's name in answers: the file's name without its extension.
    pub fn name(&self) -> String {
        self.model.file_stem().unwrap_or(self.model.as_os_str()).to_string_lossy().into_owned()
    }

    pub fn tokenizer(&self, gguf: &Gguf) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::from_gguf(gguf).with_context(|| self.model.display().to_string())?;
        note_oddities(&tokenizer);
        Ok(tokenizer)
    }
}

/// Says what of a file's tokenizer was ignored.
pub fn note_oddities(tokenizer: &Tokenizer) {
    tokenizer.notes().iter().for_each(|note| output::note(&format!("warning: {note}")));
}

/// The model's file, and how to run it.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Model options")]
pub struct ModelArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Longest sequence in tokens, prompt and output together [default: the smaller of the model's and 4096]
    #[arg(short, long, visible_alias = "ctx-size", value_name = "TOKENS", value_parser = parse_count)]
    pub ctx: Option<NonZeroUsize>,
    /// Memory for the KV cache, such as 512M or 8G; of several devices, on each [default: what batch-size sequences of full length take,
    /// or without --batch-size at most a quarter of the free memory]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub kv_memory: Option<u64>,
    /// Sequences that run together; of several devices, on each [default: for serve and batch by machine and memory, at most 64 on a CPU and 128 on a GPU;
    /// otherwise 8]
    #[arg(long, visible_alias = "parallel", value_name = "N", value_parser = parse_count)]
    pub batch_size: Option<NonZeroUsize>,
    /// Compute every prompt from its beginning, even if another with the same beginning was computed
    #[arg(long)]
    pub no_prefix_cache: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

/// How chats become prompts.
#[derive(clap::Args, Clone)]
pub struct TemplateArgs {
    /// Chat template in this file instead of the model's: Jinja, as `transformers` renders it
    #[arg(long, value_name = "FILE", value_parser = read_template)]
    chat_template: Option<TemplateText>,
    /// What time templates are told; another option decides it.
    #[arg(skip)]
    pub clock: Clock,
}

/// What chat templates are told that ask for the time.
#[derive(Clone, Copy, Default)]
pub enum Clock {
    /// What time it is.
    #[default]
    Running,
    /// Always this.
    Stopped(SystemTime),
    /// Nothing: those that ask are refused.
    Absent,
}

/// The text of a chat template.
#[derive(Clone)]
struct TemplateText(String);

fn read_template(path: &str) -> Result<TemplateText, String> {
    fs::read_to_string(path).map(TemplateText).map_err(|error| error.to_string())
}

impl TemplateArgs {
    /// The same with another clock.
    pub fn with_clock(&self, clock: Clock) -> Self {
        Self { clock, ..self.clone() }
    }

    /// The file's tokenizer, with the template of these options.
    fn tokenizer(&self, file: &FileArgs, gguf: &Gguf) -> Result<Tokenizer> {
        let tokenizer = file.tokenizer(gguf)?;
        let tokenizer = match &self.chat_template {
            None => tokenizer,
            Some(TemplateText(source)) => tokenizer.with_chat_template(source).context("--chat-template")?,
        };
        let templates = [tokenizer.chat_template(), tokenizer.tool_template()];
        let reads_clock = templates.into_iter().flatten().any(|template| template.reads_clock());
        match self.clock {
            Clock::Running => Ok(tokenizer),
            Clock::Stopped(time) => Ok(tokenizer.with_template_time(time)),
            Clock::Absent if reads_clock => bail!(
                "--reproducible: expected a chat template that does not ask what day it is, found strftime_now in it\n\
                 hint: say which day it is with --date YYYY-MM-DD"
            ),
            Clock::Absent => Ok(tokenizer),
        }
    }

    /// The hash of the template, if it is not the model's.
    pub fn hash(&self) -> Option<String> {
        let TemplateText(source) = self.chat_template.as_ref()?;
        Some(FileHash::of_bytes(source.as_bytes()).sha256)
    }
}

/// Options of a run that do not depend on number and length of the sequences.
#[derive(clap::Args, Clone)]
pub struct RunArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Devices that run the model together, each with a part of it and the bits of one; --device cpu is cut into as many. Of more devices,
    /// each group has a replica [default: 1]
    #[arg(long, visible_alias = "tensor-parallel-size", value_name = "N", value_parser = parse_count)]
    pub tensor_parallel: Option<NonZeroUsize>,
    /// CPU threads, of all replicas and ranks together [default: the physical cores]
    #[arg(short, long, value_name = "N", value_parser = parse_count)]
    pub threads: Option<NonZeroUsize>,
    /// Element type of the KV cache
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub kv_type: KvType,
    /// Tokens of a KV page
    #[arg(long, value_name = "TOKENS", default_value = "32", value_parser = parse_count)]
    pub page_size: NonZeroUsize,
    /// Most prompt tokens of one sequence in a pass
    #[arg(long, value_name = "TOKENS", default_value = "512", value_parser = parse_count)]
    pub chunk: NonZeroUsize,
    /// Attention kernels: fused, or the unfused three-step reference (contexts up to 8192 tokens)
    #[arg(long, value_name = "KIND", default_value = "fused")]
    pub attention: Attention,
    /// CPU instruction set: portable, avx2, avxvnni or avx512 [default: the machine's best]
    #[arg(long, value_name = "NAME")]
    pub isa: Option<Isa>,
    /// Bits of the activations that a CPU multiplies quantised weights with: 8, or 16 for answers nearly as if they were not rounded
    /// [default: 8]
    #[arg(long, value_name = "BITS")]
    pub activations: Option<Activations>,
    /// Seed of everything random; -1 for a random one
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_seed, allow_negative_numbers = true)]
    pub seed: Seed,
}

/// A seed, perhaps a random one.
#[derive(Clone, Copy)]
pub struct Seed {
    pub value: u64,
    pub is_random: bool,
}

fn parse_seed(text: &str) -> Result<Seed, String> {
    match text {
        // The keys of the standard library's hashes come from the system's source of random bytes.
        "-1" => Ok(Seed { value: RandomState::new().build_hasher().finish(), is_random: true }),
        _ => text
            .parse()
            .map(|value| Seed { value, is_random: false })
            .map_err(|_| "expected a whole number, 0 or more, or -1".to_owned()),
    }
}

/// Where a model runs.
#[derive(clap::Args, Clone)]
pub struct DeviceArgs {
    /// Where to run: auto, cpu, gpu, gpu:N, cuda, cuda:N, metal, vulkan or dx12; `rustorch devices` lists GPUs. Several, such as
    /// cuda:0,1 or cuda:all or cpu:0,1, have a replica of the model each
    #[arg(
        long,
        value_name = "NAME",
        default_value = "auto",
        env = "RUSTORCH_DEVICE",
        hide_env_values = true
    )]
    pub device: Devices,
    /// Multiply without a GPU's matrix units
    #[arg(long)]
    pub no_matrix_units: bool,
    /// Add up without a GPU's subgroups
    #[arg(long)]
    pub no_subgroups: bool,
}

impl DeviceArgs {
    /// The device, for what runs on one.
    pub fn one(&self) -> Result<Device> {
        self.device.one().with_context(|| format!("--device: expected one device, found {}", self.device))
    }

    /// Which features of a GPU are used.
    pub fn gpu_options(&self, profile: Profile) -> GpuOptions {
        GpuOptions {
            matrix_units: if self.no_matrix_units { MatrixUnits::Off } else { MatrixUnits::Auto },
            subgroups: if self.no_subgroups { Subgroups::Off } else { Subgroups::Auto },
            profile,
        }
    }
}

/// Options of a load that only some commands set.
#[derive(Default, Clone, Copy)]
pub struct Load {
    /// Most bytes of KV pages, if limited.
    pub kv_memory: Option<u64>,
    /// Whether kernels are timed.
    pub profile: Profile,
}

#[derive(ValueEnum, Clone, Copy)]
pub enum KvType {
    F16,
    F32,
}

#[derive(ValueEnum, Clone, Copy)]
pub enum Attention {
    Fused,
    Reference,
}

impl Attention {
    pub fn mode(self) -> AttentionMode {
        match self {
            Self::Fused => AttentionMode::Fused,
            Self::Reference => AttentionMode::Reference,
        }
    }
}

/// What an engine is for.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// As many tokens as possible.
    Throughput,
    /// Answers that people read as they come, with a time between tokens to aim at.
    Answers { itl_target: Option<Duration> },
}

/// An engine with what belongs to it.
pub struct Started {
    pub engine: EngineHandle,
    pub tokenizer: Arc<Tokenizer>,
    pub weights: Weights,
    /// The batch size, if none was given.
    pub chosen: Option<BatchSize>,
    pub fingerprint: String,
    pub pooling: Pooling,
    pub file: ModelFile,
}

impl Started {
    /// Says what runs, in a line.
    pub fn note(&self, model: &ModelArgs) {
        let ModelFile { architecture, num_parameters, format, .. } = &self.file;
        output::note(&format!(
            "running {} ({architecture}, {} parameters, {format}) on {}: batch size {}, context {}",
            model.file.name(),
            output::grouped(*num_parameters),
            self.weights.device(),
            self.engine.stats().max_num_seqs,
            self.engine.max_seq_tokens(),
        ));
    }
}

impl ModelArgs {
    /// Applies these options to a file's configuration.
    pub fn config(&self, gguf: &Gguf) -> Result<LlamaConfig> {
        let config = LlamaConfig::from_gguf(gguf).with_context(|| self.file.model.display().to_string())?;
        let ctx = self.ctx.map_or(config.max_seq_len.min(LlamaModel::DEFAULT_MAX_SEQ_LEN), NonZeroUsize::get);
        let config = config
            .with_max_seq_len(ctx)
            .with_batch_size(self.batch_size.map_or(LlamaConfig::DEFAULT_BATCH_SIZE, NonZeroUsize::get));
        let config = self.run.configure(config);
        config.validate()?;
        Ok(config)
    }

    /// Refuses a KV cache larger than --kv-memory, for commands that reserve the whole context of each sequence.
    pub fn check_kv_memory(&self, config: &LlamaConfig) -> Result<()> {
        let tokens = config.pages_per_seq() * config.page_size;
        let needed = config.kv_bytes_per_token().saturating_mul((config.batch_size * tokens) as u64);
        if let Some(limit) = self.kv_memory.filter(|&limit| needed > limit) {
            bail!(
                "KV cache: {} sequences of {tokens} tokens, in pages of {}: expected at most the {} of --kv-memory, \
                 found {}",
                config.batch_size,
                config.page_size,
                output::bytes(limit),
                output::bytes(needed)
            );
        }
        Ok(())
    }

    /// Loads the weights on one device, or one group, with a progress bar if it takes long.
    pub fn load(&self, gguf: &Gguf, config: LlamaConfig) -> Result<Weights> {
        match self.run.tensor_parallel.is_some() && self.run.num_replicas()? == 1 {
            true => {}
            false => drop(self.run.device.one()?),
        }
        self.run.load(gguf, config, Load::default()).with_context(|| self.file.model.display().to_string())
    }

    /// Loads the model and starts an engine for it, with a batch size by machine and memory if none is given.
    pub fn start_engine(&self, purpose: Purpose, template: Option<&TemplateArgs>) -> Result<Started> {
        let gguf = self.file.open()?;
        let tokenizer = match template {
            Some(template) => template.tokenizer(&self.file, &gguf)?,
            None => self.file.tokenizer(&gguf)?,
        };
        let tokenizer = Arc::new(tokenizer);
        let load = Load { kv_memory: self.kv_memory, ..Load::default() };
        let config = self.config(&gguf)?;
        note_long_context(&gguf, &config);
        let weights = self.run.load(&gguf, config, load);
        let weights = weights.with_context(|| self.file.model.display().to_string())?;
        let prefix_cache = if self.no_prefix_cache { PrefixCache::Off } else { PrefixCache::On };
        let itl_target = match purpose {
            Purpose::Throughput => None,
            Purpose::Answers { itl_target } => itl_target,
        };
        let mut options =
            EngineConfig { kv_memory: self.kv_memory, itl_target, prefix_cache, ..EngineConfig::default() };
        let chosen = self.batch_size.is_none().then(|| weights.choose_batch_size(self.kv_memory));
        if let Some(chosen) = &chosen {
            (options.max_num_seqs, options.kv_memory) = (Some(chosen.num_seqs), Some(chosen.kv_memory));
        }
        let engine = weights.start_engine(Some(Arc::clone(&tokenizer)), options)?;
        let fingerprint = model_facts::fingerprint(&gguf, &self.run, template, &weights);
        let (pooling, file) = (model_facts::pooling(&gguf), model_facts::model_file(&gguf));
        Ok(Started { engine, tokenizer, weights, chosen, fingerprint, pooling, file })
    }
}

/// Says that positions come which the model was not trained on.
fn note_long_context(gguf: &Gguf, config: &LlamaConfig) {
    let Ok(trained) = LlamaConfig::from_gguf(gguf).map(|config| config.max_seq_len) else { return };
    if config.max_seq_len > trained {
        let found = config.max_seq_len;
        output::note(&format!(
            "warning: --ctx: the model was trained on {trained} tokens, {found} are beyond that: long texts may be nonsense"
        ));
    }
}

impl RunArgs {
    /// Applies the options to a configuration.
    pub fn configure(&self, config: LlamaConfig) -> LlamaConfig {
        let config = config.with_page_size(self.page_size.get()).with_prompt_chunk(self.chunk.get());
        config.with_kv_dtype(match self.kv_type {
            KvType::F16 => KvDtype::F16,
            KvType::F32 => KvDtype::F32,
        })
    }

    /// How many replicas the devices have.
    pub fn num_replicas(&self) -> Result<usize> {
        Ok(self.device.device.num_replicas(self.tensor_parallel)?)
    }

    /// Loads the weights, with a progress bar if it takes long.
    pub fn load(&self, gguf: &Gguf, config: LlamaConfig, load: Load) -> Result<Weights> {
        let bar = ProgressBar::hidden().with_style(
            ProgressStyle::with_template("loading {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
                .expect("the template is valid"),
        );
        let started = Instant::now();
        let mut progress = |done, total| {
            if bar.is_hidden() && started.elapsed() > SHOW_AFTER {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.set_length(total);
            bar.set_position(done);
        };
        if self.activations.is_some() && self.device.device.are_gpus() {
            bail!(needs_cpu(&self.device.device.to_string()));
        }
        let activations = self.activations.unwrap_or_default();
        let cpu = CpuOptions { threads: self.threads, isa: self.isa, activations };
        let options = LoadOptions {
            cpu,
            gpu: self.device.gpu_options(load.profile),
            kv_memory: load.kv_memory,
            tensor_parallel: self.tensor_parallel,
            attention: self.attention.mode(),
            progress: Some(&mut progress),
            ..LoadOptions::default()
        };
        let weights = Weights::load_on(&self.device.device, gguf, config, options);
        bar.finish_and_clear();
        let weights = weights?;
        if self.activations.is_some() && weights.activations().is_none() {
            bail!(needs_cpu(&weights.device()));
        }
        if let Some(note) = weights.device_note() {
            output::note(&format!("warning: {note}"));
        }
        Ok(weights)
    }
}

fn needs_cpu(found: &str) -> String {
    format!("--activations: expected a CPU, found {found}\nhint: --device cpu, or leave --activations out")
}

/// How long a load takes before the progress bar appears.
const SHOW_AFTER: Duration = Duration::from_millis(300);

/// Larger than any count of a real model or machine, and small enough that products of two do not overflow.
const MOST: usize = 1 << 24;

/// A count of at least 1.
pub fn parse_count(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= MOST);
    count.ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

/// A whole number, 0 included.
pub fn parse_whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
}

/// `512M`, `8G`, `1.5GiB` or plain bytes. Units are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("expected a unit of K, M, G or T, found '{unit}'")),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("expected a number, found '{number}'"))?;
    if !(number.is_finite() && number > 0.0) {
        return Err("expected a size above 0".to_owned());
    }
    Ok((number * (1u64 << shift) as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_and_at_least_one() {
        for (text, expect) in [("1", Some(1)), ("16777216", Some(MOST)), ("16777217", None)] {
            assert_eq!(parse_count(text).ok().map(NonZeroUsize::get), expect, "{text}");
        }
        for text in ["0", "-1", "1.5", "", "a", "99999999999999999999"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_take_the_usual_units() {
        for (text, expect) in
            [("100", 100), ("1K", 1024), ("1.5GiB", 3 << 29), ("2mb", 2 << 20), ("1 T", 1 << 40)]
        {
            assert_eq!(parse_size(text), Ok(expect), "{text}");
        }
        for text in ["", "G", "-1G", "0", "1X", "1e400", "nan"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
