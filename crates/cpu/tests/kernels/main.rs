//! Every kernel of every instruction set that this machine has: what every back end must do, the same bits on other
//! numbers of threads, the faults that must be found, and what only this back end promises.

mod conforming;
mod controls;
mod exactness;
mod instruction_sets;
mod ranks;

use std::num::NonZeroUsize;

use cpu::{Activations, CpuBackend, CpuOptions, Isa};
use gguf::Gguf;

/// The instruction sets of this machine.
fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn backend(isa: Isa, activations: Activations, threads: usize) -> CpuBackend {
    CpuBackend::new(CpuOptions { threads: NonZeroUsize::new(threads), isa: Some(isa), activations }).unwrap()
}

/// A backend of every instruction set and precision of activations, with two threads.
fn backends() -> impl Iterator<Item = CpuBackend> {
    isas().flat_map(|isa| Activations::ALL.map(|activations| backend(isa, activations, 2)))
}

/// The model of the checks of whole models.
fn demo_model() -> Gguf {
    Gguf::from_static(include_bytes!("../../../../models/demo/demo.gguf")).unwrap()
}
