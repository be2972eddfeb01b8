//! Splits a finished journal into a file of results and a file of errors.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::Deserialize;

use crate::batches::Batch;
use crate::files::{FileStore, NewFile};

/// The fields of a result line that decide which file it goes to.
#[derive(Deserialize)]
struct Line {
    /// Versions before had none for a request that was not served.
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Response {
    status_code: u16,
}

/// Makes files of a journal's lines and records them in the batch. Their ids are derived from the batch's id, so that after a
/// crash the same files are replaced and no second pair is made.
///
/// # Errors
/// When the journal cannot be read or a file not be written.
pub(crate) fn publish(batch: &mut Batch, journal: &Path, files: &FileStore) -> io::Result<()> {
    let stem = batch.id.strip_prefix("batch_").unwrap_or(&batch.id);
    let begin =
        |what: &str| -> io::Result<_> { Ok(BufWriter::new(files.begin_as(format!("file-{stem}-{what}"))?)) };
    let (mut results, mut errors) = (begin("output")?, begin("errors")?);
    let lines = match File::open(journal) {
        Ok(file) => BufReader::new(file),
        // Cancelled or refused before it began.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in lines.split(b'\n') {
        let mut line = line?;
        // If the run was cut off, the last line may be incomplete.
        let Ok(Line { response }) = serde_json::from_slice(&line) else { continue };
        line.push(b'\n');
        let is_answer = response.is_some_and(|response| response.status_code == 200);
        if is_answer { &mut results } else { &mut errors }.write_all(&line)?;
    }
    batch.output_file_id = add(files, results, format!("{}_output.jsonl", batch.id))?;
    batch.error_file_id = add(files, errors, format!("{}_error.jsonl", batch.id))?;
    Ok(())
}

fn add(files: &FileStore, file: BufWriter<NewFile>, name: String) -> io::Result<Option<String>> {
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    if file.len() == 0 {
        return Ok(None);
    }
    Ok(Some(files.add(file, name, "batch_output")?.id))
}
