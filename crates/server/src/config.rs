//! Configuration of a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use batch::{Manifest, UnknownFields};
use rustorch_llama::{EngineHandle, Grammars, LlamaConfig, Pooling, Tokenizer, Weight};

use crate::access::AccessLog;
use crate::proxies::Network;

/// The model that is served.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// Runs on its own thread, which the server never blocks.
    pub engine: EngineHandle,
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Compiles the grammars that requests ask for.
    pub grammars: Arc<Grammars>,
    /// The configuration of the weights: clients are told context and batch size.
    pub config: LlamaConfig,
    /// Names that requests may use for the model; answers use the first. At least one.
    pub names: Vec<String>,
    /// The `system_fingerprint` of answers, if they have one.
    pub fingerprint: Option<String>,
    /// How embeddings are pooled that do not say it.
    pub pooling: Pooling,
    /// The model's file, as clients are told of it.
    pub file: ModelFile,
}

/// What clients are told of a model's file.
#[derive(Debug, Clone, Default)]
pub struct ModelFile {
    /// `general.architecture`.
    pub architecture: String,
    /// Number of weights.
    pub num_parameters: u64,
    /// Length of the file, or of its parts together.
    pub num_bytes: u64,
    /// The format of most weights.
    pub format: String,
}

/// A key, and its client's share of the turns in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Visible ASCII characters.
    pub key: String,
    /// Sequences that begin for each one of a key of weight 1, while both have some waiting.
    pub weight: Weight,
}

impl From<&str> for ApiKey {
    fn from(key: &str) -> Self {
        Self { key: key.to_owned(), weight: Weight::default() }
    }
}

/// How it is served.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// One of them is required of every request but those for the page and `/health`. Without any, no key is required. If there
    /// are several, they tell clients apart; else addresses do.
    pub api_keys: Vec<ApiKey>,
    /// Proxies that are believed when they say whose request they pass on, and that may have any number of connections.
    pub trusted_proxies: Vec<Network>,
    /// Sequences that may wait while the batch is full. Further requests are answered 429.
    pub max_queue: usize,
    /// Connections held at once. For a further one, the one that is idle for longest is closed.
    pub max_connections: usize,
    /// Of these, connections from one address.
    pub max_connections_per_address: usize,
    /// From a request's arrival to the last byte of its answer, the time in the queue included.
    pub request_timeout: Duration,
    /// Most bytes of a request's body, uploads of files excepted.
    pub body_limit: usize,
    /// Bytes that the bodies of all requests, and what they are parsed into, may take together. A quarter is for bodies that
    /// arrive: those beyond are answered 503.
    pub request_memory: usize,
    /// How long a body may bring nothing before it must keep a pace; a slower one is answered 408.
    pub body_grace: Duration,
    /// Most bytes of an uploaded file.
    pub file_limit: u64,
    /// Origins whose pages may use the server, such as `https://example.org`; `*` for all.
    pub cors_origins: Vec<String>,
    /// What is done with fields that the server does not know, of requests and of the lines of batches.
    pub unknown_fields: UnknownFields,
    /// Whether a line is logged for each request.
    pub access_log: AccessLog,
    /// Where files and batches are stored; without it the server has neither.
    pub data: Option<DataConfig>,
}

/// Where files and batches are stored, and how batches are run.
#[derive(Debug, Clone)]
pub struct DataConfig {
    /// Created if necessary. One server at a time may use it.
    pub folder: PathBuf,
    /// Everything the results of batches depend on, except their input. A batch that was started with another manifest is not
    /// continued.
    pub manifest: Manifest,
    /// The seed from which requests of batches derive theirs.
    pub seed: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            api_keys: Vec::new(),
            trusted_proxies: Vec::new(),
            max_queue: 512,
            max_connections: 1024,
            max_connections_per_address: 512,
            request_timeout: Duration::from_secs(600),
            body_limit: 8 << 20,
            request_memory: 512 << 20,
            body_grace: Duration::from_secs(30),
            file_limit: 512 << 20,
            cors_origins: Vec::new(),
            unknown_fields: UnknownFields::Report,
            access_log: AccessLog::On,
            data: None,
        }
    }
}
