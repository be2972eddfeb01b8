//! Continuous batching: sequences, paged KV blocks, scheduler, sampler and the engine thread.
