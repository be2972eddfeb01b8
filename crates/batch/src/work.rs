//! What there is to answer, a file or a part of a job, from its opening to its results' name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustorch_llama::EngineHandle;

use crate::error::Result;
use crate::input::{Input, Scan};
use crate::job::Job;
use crate::journal::{Existing, Journal, Output};
use crate::kept::{Errors, Found};
use crate::manifest::Manifest;
use crate::request::Model;
use crate::run::{End, Options, Order, Report, Totals, run};
use crate::shard::Shard;
use crate::table::Table;

/// Files that were opened and read once. It needs no model yet, so that what is wrong with them is found before a model is loaded.
#[derive(Debug)]
pub struct Work {
    input: Input,
    output: Output,
    scan: Option<Scan>,
    /// What is made of the output at the end, if anything is.
    table: Option<Table>,
    /// What messages call the output.
    name: String,
    part: Option<(Job, usize)>,
}

/// Work whose output is locked, repaired and known to be of the same run.
#[derive(Debug)]
pub struct Begun {
    input: Input,
    journal: Journal,
    table: Option<Table>,
    part: Option<(Job, usize)>,
}

impl Work {
    /// Opens an output and reads the lines of a shard of an input. An output named `.txt` or `.csv` is made at the end, of a journal
    /// `OUT.csv.jsonl`.
    ///
    /// # Errors
    /// As [`Output::open`] and [`Input::scan`]; an output that is one of `read` or the input.
    pub fn of_file(input: Input, output: &Path, shard: Shard, read: &[PathBuf]) -> Result<Self> {
        let files = || read.iter().map(PathBuf::as_path).chain([input.path()]);
        let table = Table::by_name(output);
        if let Some(table) = &table {
            table.must_be_a_file()?;
            files().try_for_each(|path| table.must_not_be(path))?;
        }
        let journal = table.as_ref().map_or_else(|| output.to_owned(), Table::journal);
        let output = Output::prepare(&journal)?;
        files().try_for_each(|path| output.must_not_be(path))?;
        let scan = input.scan(shard)?;
        Ok(Self { input, output, scan, table, name: journal.display().to_string(), part: None })
    }

    /// Opens a part of a job; `None` if it has its results.
    ///
    /// # Errors
    /// A part that is not there, is not as the job says or is being answered.
    pub fn of_part(job: Job, index: usize) -> Result<Option<Self>> {
        let input = job.input(index)?;
        if job.is_done(index)? {
            return Ok(None);
        }
        let unfinished = job.unfinished(index);
        let output = Output::open(&unfinished)?;
        // Another worker may have written them since.
        if job.is_done(index)? {
            // It is empty: this process has made it.
            let _ = fs::remove_file(&unfinished);
            return Ok(None);
        }
        let scan = job.scan(index, &input)?;
        let name = job.result(index).display().to_string();
        Ok(Some(Self { input, output, scan, table: None, name, part: Some((job, index)) }))
    }

    /// What messages call the output.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether results survive a crash, for which a manifest is written.
    pub fn is_durable(&self) -> bool {
        self.output.is_durable()
    }

    /// What was found in the input, if it is a regular file.
    pub fn scan(&self) -> Option<&Scan> {
        self.scan.as_ref()
    }

    /// Compares the run with the one that the output, or the job, is of, and makes the output ready.
    ///
    /// # Errors
    /// As [`Job::fix`] and [`Output::begin`]; a table that is there and has no journal.
    pub fn begin(self, mut manifest: Manifest, existing: Existing, errors: Errors) -> Result<Begun> {
        let Self { input, output, scan, table, part, .. } = self;
        if let Some((job, _)) = &part {
            job.fix(&manifest)?;
        }
        if let Some(table) = &table {
            manifest.options.insert(Manifest::TEXTS.to_owned(), true.into());
            if existing == Existing::Resume && output.is_empty()? {
                table.must_be_new()?;
            }
        }
        let journal = output.begin(manifest, existing, errors, scan)?;
        if let (Some(table), Existing::Replace) = (&table, existing) {
            table.remove()?;
        }
        Ok(Begun { input, journal, table, part })
    }
}

impl Begun {
    /// What the output has.
    pub fn found(&self) -> Found {
        self.journal.found()
    }

    /// Whether results survive a crash.
    pub fn is_durable(&self) -> bool {
        self.journal.is_durable()
    }

    /// Answers what has no result, as [`run`] does. Results of a part get their name when all are there.
    ///
    /// # Errors
    /// As [`run`] and [`Job::publish`].
    pub fn run(
        mut self,
        engine: &EngineHandle,
        model: &Model<'_>,
        options: &Options,
        stop: &AtomicBool,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<(Totals, End)> {
        let mut options = *options;
        if self.table.as_ref().is_some_and(Table::is_ordered) {
            options.order = Order::OfInput;
        }
        let (totals, end) = run(engine, model, self.input, &mut self.journal, &options, stop, report)?;
        if end == End::Complete {
            if let (Some(table), Some(file)) = (&self.table, self.journal.file()) {
                table.write(file)?;
            }
            if let Some((job, index)) = self.part {
                job.publish(index, self.journal)?;
            }
        }
        Ok((totals, end))
    }
}
