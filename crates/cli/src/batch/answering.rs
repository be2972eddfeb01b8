//! The options that results depend on, and a model that is ready to answer with them.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, bail};
use batch::{Day, Defaults, FileHash, Manifest, Model, Settings, Shard};
use rustorch_llama::Grammars;

use super::input::DefaultArgs;
use super::{settings, unknown_fields};
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
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Day>,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    defaults: DefaultArgs,
    #[command(flatten)]
    pub model: ModelArgs,
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
            // Before the model is loaded.
            bail!("--reproducible: expected a seed that is the same each time, found --seed -1");
        }
        let clock = match &self.date {
            Some(day) => Clock::Stopped(day.begin()),
            None if is_reproducible => Clock::Absent,
            None => Clock::Running,
        };
        let template = self.template.with_clock(clock);
        let started = self.model.start_engine(Purpose::Throughput, Some(&template))?;
        let grammars = Grammars::new(Arc::clone(&started.tokenizer));
        let ready = Ready {
            started,
            names: self.names(),
            grammars,
            defaults: self.defaults.defaults(),
            seed: seed.value,
            is_strict: self.strict_fields,
        };
        if is_reproducible && let Err(error) = self.settings(&ready, None, None, true).must_be_reproducible()
        {
            bail!(
                "--reproducible: {error}\nhint: give the KV cache more memory with --kv-memory, or lower --ctx"
            );
        }
        Ok(ready)
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
        let template = self.template.hash();
        let settings = self.settings(ready, template.as_deref(), Some(shard), reproducible);
        Ok(settings.manifest(self.names().swap_remove(0), model_file))
    }

    fn settings<'a>(
        &'a self,
        ready: &'a Ready,
        chat_template: Option<&'a str>,
        shard: Option<Shard>,
        reproducible: bool,
    ) -> Settings<'a> {
        let Ready { started, defaults, .. } = ready;
        let unknown_fields = unknown_fields(self.strict_fields);
        let day = self.date.as_ref();
        let given = settings(&self.model, &started.engine, &started.weights, unknown_fields, defaults);
        Settings { chat_template, day, shard, reproducible, ..given }
    }
}
