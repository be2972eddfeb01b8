//! How far a batch is: a bar on a terminal, a summary at the end.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use rustorch_llama::Usage;

use crate::output::grouped;

/// How often tokens alone make the figures beside the bar anew.
const REFRESH: Duration = Duration::from_millis(100);

/// What a batch has done, shown as it goes if standard error is a terminal.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    refreshed: Instant,
    requests: u64,
    errors: u64,
    prompt_tokens: u64,
    generated_tokens: u64,
}

impl Progress {
    /// Begins with nothing done. `input_len` is the input's length in bytes, if it is known.
    pub fn start(input_len: Option<u64>) -> Self {
        let bar = if std::io::stderr().is_terminal() { bar(input_len) } else { ProgressBar::hidden() };
        let now = Instant::now();
        let mut progress = Self {
            bar,
            started: now,
            refreshed: now,
            requests: 0,
            errors: 0,
            prompt_tokens: 0,
            generated_tokens: 0,
        };
        progress.show();
        progress
    }

    /// A token was generated.
    pub fn token(&mut self) {
        self.generated_tokens += 1;
        if self.refreshed.elapsed() >= REFRESH {
            self.show();
        }
    }

    /// A line of so many bytes of input was answered; `usage` is none of an error.
    pub fn line(&mut self, bytes: u64, usage: Option<Usage>) {
        self.requests += 1;
        self.errors += u64::from(usage.is_none());
        self.prompt_tokens += usage.map_or(0, |usage| usage.prompt_tokens as u64);
        self.bar.inc(bytes);
        self.show();
    }

    /// Takes the bar away and sums up.
    pub fn finish(self) -> String {
        self.bar.finish_and_clear();
        format!(
            "{} requests, {} errors, {} prompt tokens, {} generated in {:.1} s: {:.1} tokens/s",
            grouped(self.requests),
            grouped(self.errors),
            grouped(self.prompt_tokens),
            grouped(self.generated_tokens),
            self.started.elapsed().as_secs_f64(),
            self.tokens_per_second()
        )
    }

    fn tokens_per_second(&self) -> f64 {
        self.generated_tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn show(&mut self) {
        self.refreshed = Instant::now();
        let (requests, rate) = (grouped(self.requests), grouped(self.tokens_per_second() as u64));
        self.bar.set_message(format!("{requests} requests, {rate} tokens/s"));
    }
}

/// The share of the input's bytes that is answered, or just that something goes on.
fn bar(input_len: Option<u64>) -> ProgressBar {
    let (bar, template) = match input_len {
        Some(len) => (ProgressBar::new(len), "{bar:30} {percent:>3}% {msg}, {left} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {elapsed} {msg}"),
    };
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Until something is done nothing can be foretold.
        let _ = match state.pos() {
            0 => write!(out, "?"),
            _ => write!(out, "{:#}", HumanDuration(state.eta())),
        };
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    bar.with_style(style.with_key("left", left))
}
