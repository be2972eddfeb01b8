//! Tests of the public interface. `damage.rs` is a program of its own, because it counts all allocations.

#[path = "../common/mod.rs"]
mod common;
mod dequantize;
mod malformed;
mod reader;
mod split;
