//! The progress of a batch: a bar on a terminal, a summary at the end.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use batch::Totals;
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::output::{grouped, note};

/// How often the figures beside the bar are updated.
const REFRESH: Duration = Duration::from_millis(100);

/// The progress of a batch, shown if standard error is a terminal.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    refreshed: Instant,
}

impl Progress {
    /// Starts with nothing done. `input_len` is the input's length in bytes, if it is known.
    pub fn start(input_len: Option<u64>) -> Self {
        let bar = if std::io::stderr().is_terminal() { bar(input_len) } else { ProgressBar::hidden() };
        let now = Instant::now();
        let mut progress = Self { bar, started: now, refreshed: now };
        progress.show(&Totals::default());
        progress
    }

    /// Takes new totals.
    pub fn update(&mut self, totals: &Totals) {
        if self.refreshed.elapsed() >= REFRESH {
            self.show(totals);
        }
    }

    /// Prints a line above the bar.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    /// Removes the bar and prints the summary.
    pub fn finish(self, totals: &Totals, batch_size: NonZeroUsize) -> String {
        self.bar.finish_and_clear();
        let mut before = match totals.found.results {
            0 => String::new(),
            found => format!("; {} were done before", grouped(found)),
        };
        if totals.found.stale > 0 {
            let stale = grouped(totals.found.stale);
            before += &format!("; {stale} older results were removed: their lines were changed or removed");
        }
        format!(
            "{} requests, {} errors, {} prompt tokens ({} cached), {} generated in {:.1} s at batch size {batch_size}: {:.1} \
             tokens/s{before}",
            grouped(totals.results),
            grouped(totals.errors),
            grouped(totals.prompt_tokens),
            grouped(totals.cached_tokens),
            grouped(totals.generated_tokens),
            self.started.elapsed().as_secs_f64(),
            self.tokens_per_second(totals)
        )
    }

    fn tokens_per_second(&self, totals: &Totals) -> f64 {
        totals.generated_tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn show(&mut self, totals: &Totals) {
        self.refreshed = Instant::now();
        let (requests, rate) = (grouped(totals.results), grouped(self.tokens_per_second(totals) as u64));
        self.bar.set_position(totals.input_bytes);
        self.bar.set_message(format!("{requests} requests, {rate} tokens/s"));
    }
}

/// The share of the input's bytes that is answered; a spinner if the length is not known.
fn bar(input_len: Option<u64>) -> ProgressBar {
    let (bar, template) = match input_len {
        Some(len) => (ProgressBar::new(len), "{bar:30} {percent:>3}% {msg}, {left} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {elapsed} {msg}"),
    };
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Without progress there is no estimate.
        let _ = match state.pos() {
            0 => write!(out, "?"),
            _ => write!(out, "{:#}", HumanDuration(state.eta())),
        };
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    bar.with_style(style.with_key("left", left))
}
