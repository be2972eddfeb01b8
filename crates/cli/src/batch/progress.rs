//! The progress of a batch: a bar on a terminal or a line now and then, and a summary at the end.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use batch::Totals;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::output::{self, grouped, note};

/// How often the figures beside the bar are updated.
const REFRESH: Duration = Duration::from_millis(100);

/// The progress of a batch: a bar if standard error is a terminal, else a line at an interval.
pub struct Progress {
    bar: ProgressBar,
    /// Length of the input in bytes, if it is known.
    input_len: Option<u64>,
    started: Instant,
    refreshed: Instant,
    /// `None` for never.
    interval: Option<Duration>,
}

impl Progress {
    /// Starts with nothing done. `input_len` is the input's length in bytes, if it is known; `line_interval` the time between two lines
    /// where there is no terminal.
    pub fn start(input_len: Option<u64>, line_interval: Option<Duration>) -> Self {
        let has_bar = std::io::stderr().is_terminal() && !output::is_quiet();
        let (bar, interval) =
            if has_bar { (bar(input_len), Some(REFRESH)) } else { (ProgressBar::hidden(), line_interval) };
        let now = Instant::now();
        let mut progress = Self { bar, input_len, started: now, refreshed: now, interval };
        if has_bar {
            progress.show(&Totals::default());
        }
        progress
    }

    /// Takes new totals.
    pub fn update(&mut self, totals: &Totals) {
        if self.interval.is_some_and(|interval| self.refreshed.elapsed() >= interval) {
            self.show(totals);
        }
    }

    /// Prints a line above the bar.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    /// Removes the bar and gives the summary.
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
        let elapsed = self.started.elapsed().as_secs_f64();
        format!(
            "{} requests, {} errors, {} prompt tokens ({} cached), {} generated in {elapsed:.1} s at batch size {batch_size}: {:.1} \
             tokens/s{before}",
            grouped(totals.results),
            grouped(totals.errors),
            grouped(totals.prompt_tokens),
            grouped(totals.cached_tokens),
            grouped(totals.generated_tokens),
            rate(totals.generated_tokens, elapsed)
        )
    }

    fn show(&mut self, totals: &Totals) {
        self.refreshed = Instant::now();
        let elapsed = self.started.elapsed();
        let figures = figures(totals, elapsed);
        let left = self.input_len.map(|len| left(totals, len, elapsed));
        if !self.bar.is_hidden() {
            self.bar.set_position(totals.skipped_bytes + totals.input_bytes);
            let left = left.map_or(String::new(), |left| format!(", {left} left"));
            self.bar.set_message(format!("{figures}{left}"));
            return;
        }
        let share =
            self.input_len.map_or(String::new(), |len| format!("{} % of the input, ", percent(totals, len)));
        let left = left.map_or(String::new(), |left| format!(", {left} left"));
        note(&format!("progress: {share}{figures}{left}"));
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-9)
}

/// What has been done, and how fast.
fn figures(totals: &Totals, elapsed: Duration) -> String {
    let errors = match totals.errors {
        0 => String::new(),
        errors => format!(", {} errors", grouped(errors)),
    };
    let rate = grouped(rate(totals.generated_tokens, elapsed.as_secs_f64()) as u64);
    format!("{} requests{errors}, {rate} tokens/s", grouped(totals.results))
}

/// The share of the input's bytes that are answered or need no answer.
fn percent(totals: &Totals, input_len: u64) -> u64 {
    (totals.skipped_bytes + totals.input_bytes) * 100 / input_len.max(1)
}

/// The time for the rest of the input at this run's own pace: what was done before took it no time.
fn left(totals: &Totals, input_len: u64, elapsed: Duration) -> String {
    let rest = input_len.saturating_sub(totals.skipped_bytes + totals.input_bytes);
    match totals.input_bytes {
        // Without progress there is no estimate.
        0 => "?".to_owned(),
        done => {
            let left = elapsed.as_secs_f64() * rest as f64 / done as f64;
            format!("{:#}", HumanDuration(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)))
        }
    }
}

/// The share of the input's bytes that is answered; a spinner if the length is not known.
fn bar(input_len: Option<u64>) -> ProgressBar {
    let (bar, template) = match input_len {
        Some(len) => (ProgressBar::new(len), "{bar:30} {percent:>3}% {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {elapsed} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_before_takes_no_time() {
        let totals = Totals {
            results: 10,
            errors: 2,
            skipped_bytes: 800,
            input_bytes: 50,
            generated_tokens: 1200,
            ..Totals::default()
        };
        let elapsed = Duration::from_secs(60);
        assert_eq!(percent(&totals, 1000), 85);
        assert_eq!(left(&totals, 1000, elapsed), "3m");
        assert_eq!(figures(&totals, elapsed), "10 requests, 2 errors, 20 tokens/s");
        let begun = Totals { skipped_bytes: 800, ..Totals::default() };
        assert_eq!((percent(&begun, 1000), left(&begun, 1000, elapsed)), (80, "?".to_owned()));
    }
}
