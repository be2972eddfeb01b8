//! What a server is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use batch::Manifest;
use rustorch_llama::{EngineHandle, LlamaConfig, Tokenizer};

/// The model that is served.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// Runs on its own thread, which the server never blocks.
    pub engine: EngineHandle,
    /// The model's.
    pub tokenizer: Arc<Tokenizer>,
    /// How the weights were loaded: context and batch size are told to clients.
    pub config: LlamaConfig,
    /// What requests may call the model; answers use the first. At least one.
    pub names: Vec<String>,
}

/// How it is served.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Asked of every request but those for the page and `/health`. `None` lets everybody in.
    pub api_key: Option<String>,
    /// Sequences that may wait beyond those that run. A request beyond them is answered 429.
    pub max_queue: usize,
    /// Connections held at once; more wait in the system's backlog.
    pub max_connections: usize,
    /// From a request's arrival to the last byte of its answer, the time in the queue included.
    pub request_timeout: Duration,
    /// Most bytes of a request's body, uploads of files excepted.
    pub body_limit: usize,
    /// Most bytes of an uploaded file.
    pub file_limit: u64,
    /// Where files and batches are kept; without it there are none.
    pub data: Option<DataConfig>,
}

/// Where files and batches are kept, and what batches are run with.
#[derive(Debug, Clone)]
pub struct DataConfig {
    /// Made if there is none. One server at a time may use it.
    pub folder: PathBuf,
    /// What the results of batches depend on, but for their inputs: a batch that was begun with another is not gone on with.
    pub manifest: Manifest,
    /// From which requests of batches derive their seeds.
    pub seed: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            max_queue: 512,
            max_connections: 1024,
            request_timeout: Duration::from_secs(600),
            body_limit: 8 << 20,
            file_limit: 512 << 20,
            data: None,
        }
    }
}
