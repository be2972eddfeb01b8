//! Models as data, their weights, and the one graph over them, generic over a device backend.
//!
//! A file of [`families`] turns a GGUF file's metadata into a [`ModelSpec`]. The transformer is written once, in
//! [`Decoder::forward`], against that description and the [`Backend`] trait. A step is one ragged [`Batch`]: a flat list of
//! tokens with, for each sequence, a range of rows, so prompt chunks and decodes ride together and nothing is padded. A
//! [`Runner`] runs steps; [`ModelRunner`] is the one over a decoder, and [`RankedModel`] has one over the ranks of a group, with a thread for
//! each. This crate never sees a device or a path.
#![forbid(unsafe_code)]

mod backend;
mod batch;
mod check;
mod config;
mod decoder;
mod draw;
mod error;
mod experts;
pub mod families;
mod group;
mod layout;
pub mod math;
mod ranks;
mod rope;
mod runner;
mod shapes;
mod spec;
mod state;
mod weights;

pub use backend::{AttentionOp, Backend, Linear, NO_INDEX, Peaks, Read, RopeOp};
pub use batch::{Batch, BatchLimits, Rows, StepSize, Want};
pub use config::LlamaConfig;
pub use decoder::Decoder;
pub use draw::{Draw, draw, draw_share};
pub use error::{Error, Result, RunError};
pub use experts::{
    ExpertInput, ExpertOp, ExpertsSpec, Gating, RoutesShape, Routing, SharedExpert, SharedOutput,
};
pub use group::RankedModel;
pub use layout::{AttentionMode, BufferRole, BufferShape, ExpertsLayout, Layout, PartsLayout};
pub use ranks::{Departure, LayerShards, ModelShard, Rank, Shards};
pub use rope::{RopeConfig, RopeScaling, RopeStyle, RopeTable};
pub use runner::{ModelRunner, Output, Runner, RunnerSpec, StepOutput};
pub use shapes::{KvDtype, KvHeads, KvShape, QkvShape};
pub use spec::{
    Activation, AttentionSpec, FfnSpec, LayerSpec, ModelSpec, NormSlots, QkNorm, Temperature, TensorNames,
};
pub use state::RunState;
