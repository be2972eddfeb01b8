//! Jobs: an input in parts for many machines, and what belongs to them: `split`, `batch --job`, `verify`, `merge`.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use batch::{Compression, Input, Job, Shard, Work};

use super::answering::Answering;
use super::hash_model;
use super::input::InputArgs;
use crate::model_args::parse_whole;
use crate::output::{self, grouped};

/// Split a file of requests into parts that many machines answer
///
/// `rustorch batch --job DIR --part K` answers a part, `rustorch verify` looks whether all is well, `rustorch merge` makes one
/// file of the results: byte for byte that of one run with --reproducible. No model is needed here: the first worker fixes what
/// all of them must have. See docs/parts.md.
#[derive(clap::Args)]
pub struct SplitArgs {
    /// Requests to read, as `rustorch batch` does, or - for standard input
    #[arg(value_name = "IN.jsonl")]
    input_file: PathBuf,
    /// Folder to make, with part-00000.jsonl and so on and job.json
    #[arg(short, long, value_name = "DIR")]
    output_folder: PathBuf,
    /// Rows of each part but the last; blank lines do not count
    #[arg(long, value_name = "N")]
    rows: NonZeroU64,
    #[command(flatten)]
    input: InputArgs,
}

pub fn split(args: &SplitArgs) -> Result<()> {
    let format = args.input.format(&args.input_file);
    let input = Input::open(&args.input_file, format, Compression::Decompress)?;
    let job = Job::split(input, &args.output_folder, args.rows)?;
    let rows = grouped(job.num_rows());
    output::note(&match job.parts().len() {
        0 => "no rows, no parts".to_owned(),
        parts => format!("{rows} rows in {} parts, 0 to {}", grouped(parts as u64), parts - 1),
    });
    Ok(())
}

/// A part of a job; `None` if it has its results.
pub(super) fn work(folder: &Path, index: usize) -> Result<Option<Work>> {
    let job = Job::open(folder)?;
    let result = job.result(index);
    let work = Work::of_part(job, index)?;
    if work.is_none() {
        output::note(&format!("part {index} has its results: {}", result.display()));
    }
    Ok(work)
}

/// Look whether a job has all results, and answer some rows again
///
/// Reads all parts and results: their hashes, their rows, and whether each result is that of its line. If nothing is wrong, some rows
/// are answered again, with the model and options that the workers had, and compared byte for byte. A line on standard output for
/// each fault; the exit status is 1 if there is one.
#[derive(clap::Args)]
pub struct VerifyArgs {
    /// The job's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Rows to answer again, from all over the job; 0 for none, which needs no model
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = parse_whole::<u64>)]
    sample: u64,
    #[command(flatten)]
    pub answering: Answering,
}

pub fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let job = Job::open(&args.folder)?;
    let mut printed = Ok(());
    let mut report = |fault: &str| {
        // A message of several lines has a hint after the first.
        let line = output::visible_line(fault.lines().next().unwrap_or_default()).into_owned();
        if printed.is_ok() {
            printed = output::print(&format!("{line}\n"));
        }
    };
    let mut faults = job.verify(&mut report);
    let mut num_sampled = 0;
    if faults == 0 && args.sample > 0 && job.num_rows() > 0 {
        let hash = hash_model(&args.answering.model.file);
        let ready = args.answering.start(true)?;
        ready.started.note(&args.answering.model);
        let manifest = args.answering.manifest(Some(hash), &ready, Shard::WHOLE, true)?;
        job.check(&manifest)?;
        for row in job.sample(args.sample)? {
            num_sampled += 1;
            if let Some(fault) = row.check(&ready.started.engine, &ready.model(), &manifest)? {
                faults += 1;
                report(&fault);
            }
        }
    }
    printed?;
    let (rows, parts) = (grouped(job.num_rows()), grouped(job.parts().len() as u64));
    output::note(&format!(
        "{rows} rows in {parts} parts, {} {}; {} rows were answered again",
        grouped(faults),
        if faults == 1 { "fault" } else { "faults" },
        grouped(num_sampled)
    ));
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Make one file of a job's results
///
/// Prints its rows and its SHA-256. A job that lacks results is refused.
#[derive(clap::Args)]
pub struct MergeArgs {
    /// The job's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// File to make
    #[arg(short, long, value_name = "OUT.jsonl")]
    output_file: PathBuf,
}

pub fn merge(args: &MergeArgs) -> Result<()> {
    let merged = Job::open(&args.folder)?.merge(&args.output_file)?;
    output::print(&format!("rows {}\nsha256 {}\n", merged.rows, merged.hash.sha256))
}
