//! `rustorch bench`: the speed of a model by batch and length, and its share of the machine's peak rates.
//!
//! Every figure is measured through the engine that serves `generate` and `batch`, sampling included. `measure` runs one
//! cell of the grid; `work` counts the bytes and multiply-adds of a cell, so that `report` can say which share of the
//! machine's peak rates was reached; `table`, `csv` and `plot` show it.

mod args;
mod csv;
mod machine;
mod measure;
mod plot;
mod progress;
mod report;
mod table;
mod work;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustorch_llama::synthetic::SyntheticModel;
use rustorch_llama::{EngineConfig, Gguf, LlamaConfig, PrefixCache, Profile, Weights};

pub use self::args::Args;
use self::measure::{Bench, Cell, Gathers};
use self::progress::Progress;
use self::report::{Report, Settings};
use crate::model_args::Load;
use crate::output;

pub fn run(args: &Args) -> Result<()> {
    if let (Some(model), Some(path)) = (&args.synthetic, &args.save) {
        return save(model, path);
    }
    // Before the measurements, so that a wrong path costs no minutes.
    let plot =
        args.plot.as_deref().map(|path| File::create(path).with_context(|| path.display().to_string()));
    let plot = plot.transpose()?;
    let report = measure_grid(args)?;
    if args.json {
        output::print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else if args.csv {
        output::print(&csv::of(&report))?;
    }
    match plot {
        Some(mut file) => file.write_all(plot::svg(&report)?.as_bytes()).with_context(|| plot_name(args)),
        None => Ok(()),
    }
}

fn plot_name(args: &Args) -> String {
    args.plot.as_deref().map_or(String::new(), |path| path.display().to_string())
}

/// Loads the model and measures all cells; a table's rows are printed as they come.
fn measure_grid(args: &Args) -> Result<Report> {
    let num_replicas = args.run.num_replicas()?;
    let cells = cells(args, num_replicas);
    let (gguf, name) = open(args)?;
    let config = config(args, &gguf, &cells).with_context(|| name.clone())?;
    let profile = if args.profile { Profile::Kernels } else { Profile::Off };
    // The largest cell's; of several devices each has its part.
    let kv_memory = cells.iter().map(|cell| cell.kv_bytes(&config)).max();
    let load = Load { profile, kv_memory: kv_memory.filter(|_| num_replicas > 1) };
    let weights = args.run.load(&gguf, config, load).with_context(|| name.clone())?;
    if args.profile && !weights.times_kernels() {
        bail!("--profile: expected a GPU that times kernels, found {}", weights.device());
    }
    let loading_peak = machine::peak_memory();
    let peaks = weights.measure_peaks()?;
    // The measurement of the peaks allocates memory too, which does not count as the model's.
    let peak_before = if machine::reset_peak_memory() { loading_peak } else { None };

    let settings = Settings::new(args, &weights);
    let mut report = Report::new(name, &gguf, &weights, peaks, settings);
    drop(gguf);
    let engine = EngineConfig {
        kv_memory,
        // The repetitions of a cell have the same prompts, and each must compute them.
        prefix_cache: PrefixCache::Off,
        ..EngineConfig::default()
    };
    let bench =
        Bench::new(weights.start_engine(None, engine)?, weights.config().clone(), args.run.seed.value);

    let prints_table = !args.json && !args.csv;
    if prints_table {
        output::print(&table::heading(&report))?;
    }
    let progress = Progress::start(&cells, args.repeat.get());
    bench.warm_up(&cells)?;
    weights.kernel_times();
    for cell in cells {
        progress.begin(cell);
        let measured = bench.measure(cell, args.repeat.get(), || progress.repeat_done(cell))?;
        let peak = machine::peak_memory().max(peak_before);
        report.add(cell, &measured, Gathers::time(cell, &weights)?.as_ref(), peak);
        if prints_table {
            progress.suspend(|| output::print(&table::last_row(&report)))?;
        }
        if args.profile {
            progress.suspend(|| print_kernel_times(cell, &weights));
        }
    }
    progress.finish();
    Ok(report)
}

/// What each kernel took in all runs of a cell, prompts and decodes.
fn print_kernel_times(cell: Cell, weights: &Weights) {
    let times = weights.kernel_times();
    let all: f64 = times.iter().map(|time| time.seconds).sum();
    output::note(&format!("batch {}, length {}: {:.1} ms in kernels", cell.batch, cell.length, 1e3 * all));
    for time in times {
        let (seconds, dispatches) = (time.seconds, time.dispatches);
        let micros = 1e6 * seconds / dispatches as f64;
        let share = 100.0 * seconds / all;
        output::note(&format!(
            "  {:<20} {share:5.1} %  {:9.2} ms  {dispatches:7} x {micros:8.1} us",
            time.name,
            1e3 * seconds
        ));
    }
}

/// The grid, lengths and batches ascending.
fn cells(args: &Args, num_replicas: usize) -> Vec<Cell> {
    let ascending = |values: &[NonZeroUsize]| {
        let mut values: Vec<usize> = values.iter().map(|value| value.get()).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let batches = ascending(&args.batch);
    let of_length = |length: usize| batches.iter().map(move |&batch| (batch, length));
    let pairs = ascending(&args.lengths).into_iter().flat_map(of_length);
    let gen_steps = args.r#gen.get();
    pairs.map(|(batch, length)| Cell { batch, length, gen_steps, num_replicas }).collect()
}

fn open(args: &Args) -> Result<(Gguf, String)> {
    match &args.synthetic {
        Some(model) => Ok((model.gguf(), model.to_string())),
        None => Ok((args.file.open()?, args.file.name())),
    }
}

/// A configuration whose batch size and context hold the largest cells.
fn config(args: &Args, gguf: &Gguf, cells: &[Cell]) -> Result<LlamaConfig> {
    let config = LlamaConfig::from_gguf(gguf)?;
    let batch_size = cells.iter().map(|cell| cell.batch).max().unwrap_or(1);
    let config = args.run.configure(config.with_batch_size(batch_size));
    let trained = config.max_seq_len;
    let longest = cells.iter().max_by_key(|cell| cell.max_seq_len(&config));
    let needed = longest.map_or(1, |cell| cell.max_seq_len(&config));
    if let Some(cell) = longest.filter(|_| needed > trained) {
        bail!(
            "batch {}, length {}: expected at most the trained context of {trained} tokens, found {needed} with {} \
             decode steps and those in which not all sequences run\nhint: lower --lengths, --batch or --gen",
            cell.batch,
            cell.length,
            cell.gen_steps
        );
    }
    let config = config.with_max_seq_len(needed);
    config.validate()?;
    Ok(config)
}

fn save(model: &SyntheticModel, path: &Path) -> Result<()> {
    let name = || path.display().to_string();
    let mut file = BufWriter::new(File::create(path).with_context(name)?);
    model.write_to(&mut file).and_then(|()| file.flush()).with_context(name)?;
    let size = file.get_ref().metadata().with_context(name)?.len();
    output::note(&format!("{model}: {} written to {}", output::bytes(size), path.display()));
    Ok(())
}
