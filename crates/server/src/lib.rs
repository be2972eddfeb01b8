//! An OpenAI-compatible HTTP server over one engine.
//!
//! A request's life: a connection's task reads its body; a thread for blocking work parses, tokenises and submits it
//! (`routes`); the engine's thread sends each token through a channel that never makes it wait (`events`) to the task,
//! which writes it as a server-sent event or collects it. When the client has gone or its time is over, the task's end of the
//! channel is dropped, which cancels the sequences before the next step.
//!
//! This is the only asynchronous crate. Of the engine it knows the handle alone.
#![forbid(unsafe_code)]

mod access;
mod app;
mod auth;
mod batches;
mod body;
mod clock;
mod config;
mod connections;
mod data_folder;
mod drain;
mod events;
mod files;
mod memory;
mod metrics;
mod proxies;
mod queue;
mod random;
mod refusal;
mod router;
mod routes;
mod server;
mod trouble;

pub use access::AccessLog;
pub use config::{ApiKey, DataConfig, ModelFile, ServedModel, ServerConfig};
pub use proxies::{Network, NetworkError};
pub use server::{Server, Signals, Stop};
