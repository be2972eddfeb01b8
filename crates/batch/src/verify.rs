//! Whether results are those of a job's lines, and whether they come again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rustorch_llama::{EngineHandle, Priority};

use crate::durable;
use crate::error::{Error, Result};
use crate::hashed::Hashed;
use crate::input::{Input, RawLine};
use crate::job::{Job, Results};
use crate::journal::{Existing, Journal, Output};
use crate::kept::Errors;
use crate::lines::Lines;
use crate::manifest::{Hasher, Manifest, text};
use crate::request::{Model, ResultLine};
use crate::run::{Options, Order, run};
use crate::shard::Shard;

/// A row that was chosen to be answered again.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// The file that has its result.
    file: String,
    /// Number of its line in the whole input.
    number: u64,
    custom_id: String,
    text: Vec<u8>,
    /// Its line of the results, with the ending.
    result: Vec<u8>,
}

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

impl Job {
    /// Gives a part's results their name, once each of its lines has one. `journal` is what wrote them to
    /// [`unfinished`](Self::unfinished).
    ///
    /// # Errors
    /// Results that are not those of the part's lines: someone else has written the same file.
    pub fn publish(&self, index: usize, journal: Journal) -> Result<()> {
        let (unfinished, result) = (self.unfinished(index), self.result(index));
        let results = self.pair(index, &unfinished)?.map_err(|found| {
            Error::job(&unfinished, "one result for each line of the part, in order", found)
        })?;
        let hash = self.result_hash(index);
        durable::write_alone(&hash, &text(&results)).map_err(Error::writing(&hash.display().to_string()))?;
        durable::rename(&unfinished, &result).map_err(Error::io(&result))?;
        // It is of no use any more.
        let _ = fs::remove_file(Manifest::path(&unfinished));
        drop(journal);
        Ok(())
    }

    /// Looks at all parts and their results, and reports a line for each fault. Returns how many there are.
    pub fn verify(&self, report: &mut dyn FnMut(&str)) -> u64 {
        let rows: u64 = self.parts().iter().map(|part| part.rows).sum();
        let total = (rows != self.num_rows()).then(|| {
            format!("job.json: expected {} rows in all, found {rows} in its parts", self.num_rows())
        });
        let of_parts = (0..self.parts().len()).map(|index| {
            let scanned = self.input(index).and_then(|input| self.scan(index, &input));
            scanned.map_or_else(|error| Some(error.to_string()), |_| self.fault_of(index))
        });
        let mut count = 0;
        for fault in [total].into_iter().chain(of_parts).flatten() {
            count += 1;
            report(&fault);
        }
        count
    }

    /// What is wrong with the results of a part.
    fn fault_of(&self, index: usize) -> Option<String> {
        let path = self.result(index);
        let name = path.display();
        let look = || {
            if !self.is_done(index)? {
                return Ok(Some(format!("{name}: expected the results of part {index}, found no such file")));
            }
            let results = match self.pair(index, &path)? {
                Ok(results) => results,
                Err(found) => return Ok(Some(format!("{name}: {found}"))),
            };
            let recorded = self.recorded(index)?;
            Ok((recorded != results).then(|| {
                let (expected, found) = (recorded.hash.sha256, results.hash.sha256);
                format!("{name}: expected SHA-256 {expected}, found {found}")
            }))
        };
        look().unwrap_or_else(|error: Error| Some(error.to_string()))
    }

    /// What was written of a part's results when they were complete.
    pub(crate) fn recorded(&self, index: usize) -> Result<Results> {
        let path = self.result_hash(index);
        let text = fs::read(&path).map_err(Error::io(&path))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::job(&path, "the hash of a part's results", error.to_string()))
    }

    /// Reads a part's lines and what should be their results side by side. The inner error says where they differ.
    fn pair(&self, index: usize, results: &Path) -> Result<std::result::Result<Results, String>> {
        let part = self.part(index)?;
        let mut places = self.input(index)?.lines(Shard::WHOLE)?;
        let input = File::open(results).map_err(Error::io(results))?;
        let mut hashed = Hashed { input, hasher: Hasher::default() };
        let mut lines = Lines::new(BufReader::with_capacity(BUFFER, &mut hashed), u64::MAX - 1);
        let (mut text, mut rows) = (Vec::new(), 0);
        while let Some(line) = lines.next(&mut text).map_err(Error::io(results))? {
            let place = places.next().map_err(Error::named(&part.file))?;
            let result = if line.is_ended { ResultLine::read(&text) } else { None };
            if let Some(found) = mismatch(place, result) {
                return Ok(Err(format!("line {}: {found}", line.number)));
            }
            rows += 1;
        }
        if rows != part.rows {
            return Ok(Err(format!("expected {} results, found {rows}", part.rows)));
        }
        Ok(Ok(Results { rows, hash: hashed.hasher.finish() }))
    }

    /// Rows from all over the job, `count` or all of them, with their results. The job must be without faults.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn sample(&self, count: u64) -> Result<Vec<Sampled>> {
        let count = count.min(self.num_rows());
        // In the middle of `count` equal shares.
        let row = |idx: u64| {
            let row = (u128::from(idx) * 2 + 1) * u128::from(self.num_rows()) / (u128::from(count) * 2);
            u64::try_from(row).unwrap_or(u64::MAX)
        };
        let mut wanted = (0..count).map(row).peekable();
        let (mut sampled, mut before) = (Vec::new(), 0);
        for (index, part) in self.parts().iter().enumerate() {
            let end = before + part.rows;
            let mut rows = Vec::new();
            while let Some(row) = wanted.next_if(|&row| row < end) {
                rows.push(row - before);
            }
            self.sample_part(index, &rows, &mut sampled)?;
            before = end;
        }
        Ok(sampled)
    }

    /// Reads rows of a part and their results.
    fn sample_part(&self, index: usize, rows: &[u64], sampled: &mut Vec<Sampled>) -> Result<()> {
        let Some(&last) = rows.last() else { return Ok(()) };
        let path = self.result(index);
        let mut places = self.input(index)?.lines(Shard::WHOLE)?;
        let file = File::open(&path).map_err(Error::io(&path))?;
        let mut results = BufReader::with_capacity(BUFFER, file);
        let mut result = Vec::new();
        for row in 0..=last {
            let place = places.next().map_err(Error::named(&self.part(index)?.file))?;
            result.clear();
            results.read_until(b'\n', &mut result).map_err(Error::io(&path))?;
            // A line that is too long to be read is the same error each time.
            if rows.binary_search(&row).is_ok()
                && let Some(RawLine { number, custom_id, text: Ok(text), .. }) = place
            {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                sampled.push(Sampled { file, number, custom_id, text, result: result.clone() });
            }
        }
        Ok(())
    }
}

/// Why this is not the result of this line.
fn mismatch(place: Option<RawLine>, result: Option<ResultLine>) -> Option<String> {
    let Some(place) = place else { return Some("expected the end, found more".to_owned()) };
    let Some(result) = result else { return Some("expected a result, found other text".to_owned()) };
    let (expected, found) = (place.custom_id, result.custom_id);
    if expected != found {
        return Some(format!("expected the result of custom_id {expected:?}, found that of {found:?}"));
    }
    (result.hash != Some(place.hash))
        .then(|| format!("custom_id {expected:?}: expected the result of its line, found another's"))
}

impl Sampled {
    /// Answers the row again; says what is wrong if that gives other bytes than the job has.
    ///
    /// # Errors
    /// An engine that fails.
    pub fn check(
        &self,
        engine: &EngineHandle,
        model: &Model<'_>,
        manifest: &Manifest,
    ) -> Result<Option<String>> {
        let input = Input::of_text([&self.text[..], b"\n"].concat()).part_from(self.number);
        let manifest = Manifest { reproducible: true, ..manifest.clone() };
        let mut journal = Output::memory().begin(manifest, Existing::Replace, Errors::Keep, None)?;
        let options = Options {
            window: NonZeroUsize::MIN,
            order: Order::OfInput,
            shard: Shard::WHOLE,
            priority: Priority::Normal,
        };
        run(engine, model, input, &mut journal, &options, &AtomicBool::new(false), &mut |_| {})?;
        Ok((journal.into_memory() != self.result).then(|| {
            let Self { file, custom_id, .. } = self;
            format!("{file}: custom_id {custom_id:?}: expected the bytes that it gives again, found others")
        }))
    }
}
