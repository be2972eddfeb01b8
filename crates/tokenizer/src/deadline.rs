//! Until when a chat template may go on.
//!
//! Fuel limits what a template does, but not how long a step takes on a machine that is busy. So each turn of a loop, each call
//! of a macro, what is written and what is counted look at the clock. The engine gives filters and formatters nothing of
//! their rendering that a template could not replace, so the time is kept for the thread that renders.

use std::cell::Cell;
use std::time::{Duration, Instant};

use minijinja::value::Value;
use minijinja::{Environment, Error};

use crate::counted::count;
use crate::jinja::refused;

/// Name of the filter that looks at the clock. Templates cannot replace filters.
const CHECKED: &str = "__in_time";

/// How long a template may take if nothing else is said.
pub(crate) const DEFAULT: Duration = Duration::from_secs(10);

thread_local! {
    /// When the rendering on this thread began, and how long it may take.
    static RENDERING: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// A rendering on this thread, until it is dropped.
pub(crate) struct Deadline(Option<(Instant, Duration)>);

impl Deadline {
    /// Begins now and ends after `limit`.
    pub(crate) fn start(limit: Duration) -> Self {
        Deadline(RENDERING.replace(Some((Instant::now(), limit))))
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        RENDERING.set(self.0);
    }
}

/// Whether there is time left.
///
/// # Errors
/// If there is not.
pub(crate) fn check() -> Result<(), Error> {
    match RENDERING.get() {
        Some((start, limit)) if start.elapsed() >= limit => {
            Err(refused(format!("expected an end within {} s, found none", limit.as_secs_f64())))
        }
        _ => Ok(()),
    }
}

/// Makes templates look at the clock where they write something, and where [`checking`] has put it.
pub(crate) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter(CHECKED, |value: Value| check().map(|()| value));
    environment.set_formatter(|out, state, value| {
        check()?;
        // The engine writes out a whole list, and counts what was written when that is done.
        count(state, value)?;
        minijinja::escape_formatter(out, state, value)
    });
}

/// What follows the block tag `tag` of a loop or a macro, so that each turn and call looks at the clock. It treats the white space behind
/// it as the tag does.
pub(crate) fn checking(word: &str, tag: &str) -> Option<String> {
    let text = tag.strip_suffix("%}").filter(|_| matches!(word, "for" | "macro" | "call"))?;
    let sign = ["-", "+"].into_iter().find(|&sign| text.ends_with(sign)).unwrap_or_default();
    Some(format!("{{% if 0 | {CHECKED} %}}{{% endif {sign}%}}"))
}
