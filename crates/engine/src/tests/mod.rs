//! The crate's rooms together, over the fake model of [`testing`](crate::testing).

mod arrivals;
mod constraints;
mod drafts;
mod embeddings;
mod endings;
mod fairness;
mod prefix_cache;
mod priorities;
mod refusals;
mod replicas;
mod scheduling;
mod threads;
mod turns;
