//! The handlers, one module for each part of the API.

pub(crate) mod anthropic;
pub(crate) mod batches;
pub(crate) mod files;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod llamacpp;
pub(crate) mod models;
pub(crate) mod ollama;
mod pages;
mod parts;
pub(crate) mod tokens;
