//! `rustorch serve`: the model behind an OpenAI-compatible HTTP API.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::batch::{Defaults, Settings};
use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use rustorch_llama::{BatchSize, Grammars};
use server::{AccessLog, ApiKey, DataConfig, Network, ServedModel, Server, ServerConfig, Signals};

use crate::model_args::{ModelArgs, Purpose, Started, TemplateArgs, parse_count, parse_size, parse_whole};
use crate::output;
use crate::{api_keys, batch};

/// Serve the model over HTTP, as OpenAI's API
///
/// Routes: /v1/completions and /v1/chat/completions (whole or streaming), /v1/embeddings, /v1/models, with --data-dir
/// /v1/files and /v1/batches, /tokenize, /detokenize, /tokenizer_info, /health, /version and /metrics, and a page at / that shows the batch at work. A
/// request without a seed gets a random one.
///
/// On SIGTERM or SIGINT the server finishes running requests, refuses new ones and ends; a second signal ends it at once.
#[derive(clap::Args)]
pub struct Args {
    /// Address to listen at; 0.0.0.0 or :: for all addresses of the machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen at; 0 for any free one
    #[arg(long, value_name = "PORT", default_value = "8080")]
    port: u16,
    /// Address and port of a second listener for /health, /ping and /metrics alone, such as 127.0.0.1:9090: it answers when all
    /// connections of the first are in use. The first serves them too
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Key that requests must have; better set in the environment, which other users cannot see
    #[arg(long, value_name = "KEY", env = "RUSTORCH_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// File with a key in each line, perhaps with a blank and a weight from 1 to 1000 behind it: in the queue, keys take turns by
    /// their weights
    #[arg(long, value_name = "FILE", conflicts_with = "api_key")]
    api_key_file: Option<PathBuf>,
    /// Proxy that is believed when it says whose request it passes on (X-Forwarded-For or Forwarded), as an address or a network
    /// such as 10.0.0.0/8; repeat for more. Clients are told apart by their addresses unless there are several keys
    #[arg(long, value_name = "ADDRESS")]
    trusted_proxy: Vec<Network>,
    /// Origin of web pages that may use the server, such as https://example.org; repeat for more, * for all
    #[arg(long, value_name = "ORIGIN", value_parser = parse_origin)]
    cors_origin: Vec<String>,
    /// Name of the model; repeat for aliases, answers use the first [default: the file's name]
    #[arg(long, visible_alias = "alias", value_name = "NAME")]
    model_name: Vec<String>,
    /// Sequences that may wait while the batch is full; further requests are answered 429
    #[arg(long, value_name = "N", default_value = "512", value_parser = parse_whole::<usize>)]
    max_queue: usize,
    /// Connections held at once; for a further one, the one that is idle for longest is closed
    #[arg(long, value_name = "N", default_value = "1024", value_parser = parse_count)]
    max_connections: NonZeroUsize,
    /// Of these, connections from one address [default: half]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    max_connections_per_address: Option<NonZeroUsize>,
    /// Seconds that a request may take, waiting included
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = parse_count)]
    request_timeout: NonZeroUsize,
    /// Milliseconds between two tokens of an answer to aim at: long prompts take no more of a step than that leaves, or as much
    /// time as the answers if they alone take longer; 0 for no aim, which is best for throughput
    #[arg(long, value_name = "MS", default_value = "50", value_parser = parse_whole::<u32>)]
    itl_target: u32,
    /// Most bytes of a request's body, such as 8M
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = parse_size)]
    body_limit: u64,
    /// Most memory for the bodies of all requests and for what they are parsed into; a quarter is for bodies that arrive, and those
    /// beyond are answered 503
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    request_memory: u64,
    /// Most bytes of an uploaded file
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    file_limit: u64,
    /// Refuse requests with fields that the server does not know, instead of ignoring these
    #[arg(long)]
    strict_fields: bool,
    /// Whether standard error gets a line for each request, refusals included: what was asked by whom, the status, tokens and times, nothing
    /// of prompts and answers. Probes of the server's state that succeed are left to --verbose
    #[arg(long, value_name = "WHETHER", default_value = "on", num_args = 0..=1, default_missing_value = "on")]
    access_log: Whether,
    /// Folder for uploaded files and batches, which outlive the server; without it the server has neither
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Whether something is done.
#[derive(ValueEnum, Clone, Copy)]
enum Whether {
    #[value(alias = "true", alias = "1")]
    On,
    #[value(alias = "false", alias = "0")]
    Off,
}

impl From<Whether> for AccessLog {
    fn from(whether: Whether) -> Self {
        match whether {
            Whether::On => Self::On,
            Whether::Off => Self::Off,
        }
    }
}

impl Args {
    /// The time between tokens to aim at, if there is an aim.
    fn itl_target(&self) -> Option<Duration> {
        (self.itl_target > 0).then(|| Duration::from_millis(self.itl_target.into()))
    }
}

/// An origin as browsers send it: scheme and host, perhaps a port, no path.
fn parse_origin(text: &str) -> Result<String, String> {
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic() && c != '/')
    });
    match is_origin || text == "*" || text == "null" {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("expected a scheme and a host, such as https://example.org, or *".to_owned()),
    }
}

/// The keys of which requests must have one.
fn api_keys(args: &Args) -> Result<Vec<ApiKey>> {
    match (&args.api_key, &args.api_key_file) {
        (Some(key), _) => api_keys::given(key),
        (None, Some(file)) => api_keys::of_file(file),
        (None, None) => Ok(Vec::new()),
    }
}

/// Files that are open beside connections, generously.
const SPARE_FILES: u64 = 512;

pub fn run(args: &Args) -> Result<()> {
    let api_keys = api_keys(args)?;
    if args.request_memory / 4 < args.body_limit {
        let (least, found) = (output::bytes(4 * args.body_limit), output::bytes(args.request_memory));
        bail!("--request-memory: expected at least four times --body-limit, {least}, found {found}");
    }
    // Each connection is an open file, and many systems allow a process 1024 unless it asks for more. Whatever is allowed is
    // enough to go on: connections beyond it wait.
    let _ = rlimit::increase_nofile_limit(args.max_connections.get() as u64 + SPARE_FILES);
    let address = SocketAddr::new(args.host, args.port);
    // Before the model is loaded, which may take minutes.
    let listener = TcpListener::bind(address).with_context(|| address.to_string())?;
    let address = listener.local_addr()?;
    let bind = |address: SocketAddr| TcpListener::bind(address).with_context(|| address.to_string());
    let state_listener = args.metrics_listen.map(bind).transpose()?;
    // While the model loads; only batches need it.
    let hash = args.data_dir.is_some().then(|| batch::hash_model(&args.model.file));
    let Started { engine, tokenizer, weights, chosen, fingerprint, pooling, file } =
        args.model.start_engine(Purpose::Answers { itl_target: args.itl_target() }, Some(&args.template))?;
    let names = match args.model_name.as_slice() {
        [] => vec![args.model.file.name()],
        names => names.to_vec(),
    };
    let unknown_fields = batch::unknown_fields(args.strict_fields);
    let data = match (&args.data_dir, hash) {
        (Some(folder), Some(hash)) => {
            let hash =
                hash.join().map_err(|_| anyhow!("the model's hash: its thread ended by a panic"))??;
            let name = names[0].clone();
            let (template, defaults) = (args.template.hash(), Defaults::default());
            let settings = batch::settings(&args.model, &engine, &weights, unknown_fields, &defaults);
            let settings = Settings { chat_template: template.as_deref(), ..settings };
            let manifest = settings.manifest(name, hash);
            Some(DataConfig { folder: folder.clone(), manifest, seed: args.model.run.seed.value })
        }
        _ => None,
    };
    let config = weights.config().clone().with_batch_size(engine.stats().max_num_seqs);
    let grammars = Arc::new(Grammars::new(Arc::clone(&tokenizer)));
    let served = ServedModel {
        engine,
        tokenizer,
        grammars,
        config,
        names,
        fingerprint: Some(fingerprint),
        pooling,
        file,
    };
    let is_open = api_keys.is_empty();
    let config = ServerConfig {
        api_keys,
        trusted_proxies: args.trusted_proxy.clone(),
        cors_origins: args.cors_origin.clone(),
        max_queue: args.max_queue,
        max_connections: args.max_connections.get(),
        max_connections_per_address: args
            .max_connections_per_address
            .map_or(args.max_connections.get().div_ceil(2), NonZeroUsize::get),
        request_timeout: Duration::from_secs(args.request_timeout.get() as u64),
        body_limit: usize::try_from(args.body_limit).unwrap_or(usize::MAX),
        request_memory: usize::try_from(args.request_memory).unwrap_or(usize::MAX),
        file_limit: args.file_limit,
        unknown_fields,
        access_log: args.access_log.into(),
        data,
        ..ServerConfig::default()
    };
    let model_name = served.names[0].clone();
    let mut server = Server::new(listener, served, config, Signals::Heed)?;
    let state_address = state_listener.as_ref().map(TcpListener::local_addr).transpose()?;
    if let Some(listener) = state_listener {
        server = server.with_state_listener(listener)?;
    }
    if is_open && !args.host.is_loopback() {
        output::note("warning: anyone who reaches this address can use the model; --api-key asks for a key");
    }
    output::note(&format!("serving {model_name} on {} at http://{address}", weights.device()));
    if let Some(address) = state_address {
        output::note(&format!("health and metrics at http://{address}"));
    }
    if let Some(BatchSize { num_seqs, kv_memory, reason }) = chosen {
        let kv_memory = output::bytes(kv_memory);
        let each = if weights.num_replicas() * weights.num_ranks() > 1 { " on each device" } else { "" };
        output::note(&format!("batch size {num_seqs} with {kv_memory} of KV pages{each}: {reason}"));
    }
    server.run().context("serving")
}
