//! The progress of a benchmark, on standard error if that is a terminal.

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::measure::Cell;

/// A bar over the estimated time of all cells.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub fn start(cells: &[Cell], repeats: usize) -> Self {
        let total = cells.iter().map(cost).sum::<u64>() * repeats as u64;
        let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // Without progress there is no estimate.
            let _ = match state.pos() {
                0 => write!(out, "?"),
                _ => write!(out, "{:#}", HumanDuration(state.eta())),
            };
        };
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}, {left} left");
        let style = style.expect("the template is valid").with_key("left", left);
        let bar = ProgressBar::new(total).with_style(style).with_message("warming up");
        bar.tick();
        Self { bar }
    }

    pub fn begin(&self, cell: Cell) {
        self.bar.set_message(format!("length {}, batch {}", cell.length, cell.batch));
    }

    pub fn repeat_done(&self, cell: Cell) {
        self.bar.inc(cost(&cell));
    }

    /// Hides the bar while something is printed.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Estimated time of a measurement, in prompt tokens: prompts run twice, and a decode step takes as long as its own tokens and
/// `STEP` more.
fn cost(cell: &Cell) -> u64 {
    const STEP: usize = 8;
    (2 * cell.batch * cell.length + cell.gen_steps * (cell.batch + STEP)) as u64
}
