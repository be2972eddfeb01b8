//! Uploaded files: contents and what is known of them, in a folder that outlives the server.
//!
//! A file is `ID.data`, then `ID.json`, each complete and on disk before it has its name. Only the second makes it exist, so
//! a crash at any instant leaves a whole file or none; remains are removed at the next start.

mod store;

pub(crate) use store::{FileStore, NewFile, StoredFile, write_durably};
