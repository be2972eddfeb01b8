//! Tests of the public interface, in one program: each would compile the same generic code again.

mod chat;
mod hostile;
mod pre_tokenizers;
mod python;
mod round_trip;
mod support;
mod vectors;
mod vocabularies;
