//! A server for one test.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use batch::{FileHash, Manifest};
use rustorch_llama::{EngineConfig, EngineHandle, Grammars, LlamaConfig, Tokenizer, Weights, demo};
use server::{DataConfig, ModelFile, ServedModel, Server, ServerConfig, Signals, Stop};

use crate::client;

/// A folder for files and batches.
pub fn data(folder: PathBuf) -> DataConfig {
    let manifest = Manifest {
        format: Manifest::FORMAT,
        rustorch: "test".to_owned(),
        model: "demo".to_owned(),
        model_file: FileHash::of_bytes(demo::BYTES),
        input: None,
        device: "cpu".to_owned(),
        options: Default::default(),
        reproducible: false,
    };
    DataConfig { folder, manifest, seed: 0 }
}

/// A running server; it is stopped and its end awaited when this is dropped.
pub struct Served {
    pub address: SocketAddr,
    /// Of the listener for the state.
    pub state_address: SocketAddr,
    pub engine: EngineHandle,
    pub stop: Stop,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

/// Sequences that run together.
pub const BATCH_SIZE: usize = 4;

fn loaded() -> &'static (Weights, Arc<Tokenizer>) {
    static LOADED: OnceLock<(Weights, Arc<Tokenizer>)> = OnceLock::new();
    LOADED.get_or_init(|| {
        let gguf = demo::gguf();
        let config = LlamaConfig::from_gguf(&gguf).unwrap().with_batch_size(BATCH_SIZE);
        let weights = Weights::load(&gguf, config, Default::default()).unwrap();
        (weights, Arc::new(Tokenizer::from_gguf(&gguf).unwrap()))
    })
}

impl Served {
    /// A server with the usual configuration.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// A server whose configuration `change` has changed.
    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::try_with(change).unwrap()
    }

    /// As [`with`](Self::with), if it starts.
    pub fn try_with(change: impl FnOnce(&mut ServerConfig)) -> std::io::Result<Self> {
        let (weights, tokenizer) = loaded();
        let engine = weights.start_engine(Some(Arc::clone(tokenizer)), EngineConfig::default()).unwrap();
        let model = ServedModel {
            engine: engine.clone(),
            tokenizer: Arc::clone(tokenizer),
            grammars: Arc::new(Grammars::new(Arc::clone(tokenizer))),
            config: weights.config().clone(),
            names: vec!["demo".to_owned(), "alias".to_owned()],
            fingerprint: Some("fp_test".to_owned()),
            pooling: Default::default(),
            file: ModelFile { architecture: "llama".to_owned(), ..ModelFile::default() },
        };
        let mut config = ServerConfig::default();
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state_listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state_address = state_listener.local_addr().unwrap();
        let server = Server::new(listener, model, config, Signals::Ignore)?;
        let server = server.with_state_listener(state_listener)?;
        let stop = server.stop_handle();
        Ok(Self { address, state_address, engine, stop, thread: Some(thread::spawn(|| server.run())) })
    }

    /// Waits until the server has ended by itself.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    /// A figure of `/metrics`, by its name with labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = client::get(self.address, "/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is not in:\n{text}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take()
            && !thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}
