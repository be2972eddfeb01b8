//! The server as its clients meet it: bytes over TCP.
//!
//! Every test runs a server of its own on a free port, over an engine of the demo model. The client is written by hand, so
//! that tests can leave, stall and send rubbish as real clients do.

mod abuse;
mod answers;
mod batches;
mod client;
mod doors;
mod draining;
mod files;
mod leaving;
mod limits;
mod refusals;
mod served;
