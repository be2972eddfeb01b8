//! The crate's rooms together, over the fake model of [`testing`](crate::testing).

mod endings;
mod refusals;
mod scheduling;
mod threads;
