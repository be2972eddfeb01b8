//! The native part of the Python package `rustorch_llama`: an engine, the events of requests as plain values, and files of
//! requests.
//!
//! Requests are bodies of OpenAI's API, so that crate `openai` reads them, refuses what is wrong in its own words and makes the
//! same sequences as for a batch or the server. Names and shapes for Python's users are in `python/rustorch_llama`. Whatever
//! takes long runs detached from the interpreter, and the engine's thread never waits for it.

mod batch;
mod engine;
mod error;
mod load;
mod requests;

/// See `rustorch_llama`.
#[pyo3::pymodule]
mod _rustorch {
    #[pymodule_export]
    use crate::batch::BatchSummary;
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::error::EngineError;
    #[pymodule_export]
    use crate::requests::{Part, Requests, Submitted};

    /// The seed of a request with this id that has none, in a run with this seed.
    #[pyo3::pyfunction]
    fn row_seed(custom_id: &str, seed: u64) -> u64 {
        ::batch::row_seed(seed, custom_id)
    }
}
