//! Errors as Python's exceptions: `ValueError` if the caller can avoid it, otherwise [`EngineError`].

use std::io;

use openai::ApiError;
use pyo3::PyErr;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use rustorch_llama::Error;

pyo3::create_exception!(
    rustorch_llama,
    EngineError,
    PyRuntimeError,
    "A model could not be loaded, a device failed, or the engine has stopped."
);

/// An argument of this name is wrong.
pub fn bad_argument(name: &str, rest: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{name}: {rest}"))
}

/// Of a request.
pub fn of_request(error: &ApiError) -> PyErr {
    match error.is_invalid_request() {
        true => PyValueError::new_err(error.to_string()),
        false => EngineError::new_err(error.to_string()),
    }
}

/// Of a load or a call of the model.
pub fn of_model(error: &Error) -> PyErr {
    match error {
        Error::EmptyBatch
        | Error::EmptySequence { .. }
        | Error::TokenOutOfRange { .. }
        | Error::ContextOverflow { .. }
        | Error::InvalidValue { .. } => PyValueError::new_err(error.to_string()),
        _ => EngineError::new_err(error.to_string()),
    }
}

/// Of a batch, with what is to be added to its message.
pub fn of_batch(error: &batch::Error, rest: Option<String>) -> PyErr {
    use batch::Error as E;
    let message = error.to_string().replace("--overwrite", "overwrite=True") + &rest.unwrap_or_default();
    match error {
        // `FileNotFoundError` and others by its kind.
        E::Io { source, .. } => io::Error::new(source.kind(), message).into(),
        E::NotJsonLines { .. }
        | E::SameFile { .. }
        | E::DuplicateId { .. }
        | E::NoManifest { .. }
        | E::NoJournal { .. }
        | E::BadManifest { .. }
        | E::OtherRun { .. }
        | E::OtherWorker { .. }
        | E::Job { .. } => PyValueError::new_err(message),
        _ => EngineError::new_err(message),
    }
}
