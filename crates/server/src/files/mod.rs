//! Uploaded files: contents and descriptions, in a folder that outlives the server.
//!
//! A file is `ID.data`, then `ID.json`. Each is complete and on disk before it gets its name. A file exists once its
//! `ID.json` does, so a crash leaves a whole file or none; remains are removed at the next start.

mod store;

pub(crate) use store::{FileStore, NewFile, StoredFile, is_own_name, write_durably};
