//! The options that results depend on, and a model that is ready to answer with them.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail};
use batch::{Defaults, FileHash, Manifest, Model, Shard};
use rustorch_llama::Grammars;
use serde_json::json;

use super::input::DefaultArgs;
use super::{manifest, template_option, unknown_fields};
use crate::model_args::{Clock, ModelArgs, Purpose, Started, TemplateArgs};

/// What lines are answered with.
#[derive(clap::Args)]
pub struct Answering {
    /// Refuse lines with fields that nobody knows, instead of ignoring these
    #[arg(long)]
    strict_fields: bool,
    /// Name of the model, which requests may name; repeat for aliases, answers use the first [default: the file's name]
    #[arg(long, visible_alias = "alias", value_name = "NAME")]
    model_name: Vec<String>,
    /// Day that chat templates are told, at 00:00 UTC [default: today and now]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_day)]
    date: Option<Day>,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    defaults: DefaultArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// A day as it was written.
#[derive(Clone)]
struct Day {
    text: String,
    begin: SystemTime,
}

fn parse_day(text: &str) -> Result<Day, String> {
    let numbers: Option<Vec<u64>> = text.split('-').map(|number| number.parse().ok()).collect();
    let widths: Vec<usize> = text.split('-').map(str::len).collect();
    let day = match (numbers.as_deref(), widths.as_slice()) {
        (Some(&[year, month, day]), [4, 2, 2]) => days_since_1970(year, month, day),
        _ => None,
    };
    let days = day.ok_or_else(|| "expected a day from 1970-01-01 on, such as 2026-11-30".to_owned())?;
    Ok(Day { text: text.to_owned(), begin: UNIX_EPOCH + Duration::from_secs(days * 86_400) })
}

/// Of a day of the Gregorian calendar, if there is one of this date.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    let length = *months.get(before)?;
    if year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    Some(years + months[..before].iter().sum::<u64>() + day - 1)
}

/// A model with all that belongs to it.
pub struct Ready {
    pub started: Started,
    names: Vec<String>,
    grammars: Grammars,
    defaults: Defaults,
    seed: u64,
    is_strict: bool,
}

impl Ready {
    pub fn model(&self) -> Model<'_> {
        let Started { tokenizer, weights, fingerprint, pooling, .. } = &self.started;
        Model {
            tokenizer,
            grammars: &self.grammars,
            names: &self.names,
            hidden_size: weights.config().hidden_size(),
            pooling: *pooling,
            fingerprint: Some(fingerprint),
            seed: self.seed,
            unknown_fields: unknown_fields(self.is_strict),
            defaults: &self.defaults,
        }
    }
}

impl Answering {
    /// Loads the model.
    ///
    /// # Errors
    /// Also for what would make results depend on more than their lines, if they are to be reproducible.
    pub fn start(&self, is_reproducible: bool) -> Result<Ready> {
        let seed = self.model.run.seed;
        if is_reproducible && seed.is_random {
            bail!("--reproducible: expected a seed that is the same each time, found --seed -1");
        }
        let clock = match &self.date {
            Some(day) => Clock::Stopped(day.begin),
            None if is_reproducible => Clock::Absent,
            None => Clock::Running,
        };
        let template = self.template.with_clock(clock);
        let started = self.model.start_engine(Purpose::Throughput, Some(&template))?;
        let (context, pool) = (started.weights.config().max_seq_len, started.engine.max_seq_tokens());
        if is_reproducible && pool < context {
            bail!(
                "--reproducible: expected KV pages for the {context} tokens of a context, found them for {pool}\n\
                 hint: give the KV cache more memory with --kv-memory, or lower --ctx"
            );
        }
        let grammars = Grammars::new(Arc::clone(&started.tokenizer));
        Ok(Ready {
            started,
            names: self.names(),
            grammars,
            defaults: self.defaults.defaults(),
            seed: seed.value,
            is_strict: self.strict_fields,
        })
    }

    /// What the model is called.
    fn names(&self) -> Vec<String> {
        if self.model_name.is_empty() { vec![self.model.file.name()] } else { self.model_name.clone() }
    }

    /// Everything but the input that the results depend on. `hash` is that of the model's file, which a stream does without.
    pub fn manifest(
        &self,
        hash: Option<JoinHandle<Result<FileHash>>>,
        ready: &Ready,
        shard: Shard,
        reproducible: bool,
    ) -> Result<Manifest> {
        let model_file = match hash {
            Some(hash) => {
                hash.join().map_err(|_| anyhow!("the model's hash: its thread ended by a panic"))??
            }
            // A stream has no manifest.
            None => FileHash { bytes: 0, sha256: String::new() },
        };
        let (name, unknown_fields) = (self.names().swap_remove(0), unknown_fields(self.strict_fields));
        let Started { engine, weights, .. } = &ready.started;
        let mut manifest = manifest(&self.model, name, model_file, engine, weights, unknown_fields);
        manifest.options.extend(template_option(&self.template));
        manifest.options.extend(self.defaults.options());
        manifest.options.extend(self.date.as_ref().map(|day| ("date".to_owned(), json!(day.text))));
        manifest.options.insert("shard".to_owned(), json!(shard.to_string()));
        Ok(Manifest { reproducible, ..manifest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = |text: &str| {
            let day = parse_day(text).ok()?;
            Some(day.begin.duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400)
        };
        for (text, expect) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29", Some(11_016)),
            ("2000-03-01", Some(11_017)),
            ("2026-11-30", Some(20_787)),
            ("2100-02-29", None),
            ("1969-12-31", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-04-31", None),
            ("2026-4-1", None),
            ("2026-11-30-1", None),
            ("", None),
        ] {
            assert_eq!(days(text), expect, "{text}");
        }
    }
}
