//! The options of how an input is read, and of what its lines are given that do not say it.

use std::num::NonZeroUsize;
use std::path::Path;

use batch::{Defaults, InputFormat};
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use crate::model_args::{parse_count, parse_whole};
use crate::sampling_args::{PROBABILITY, is_probability, number};

/// How the input is written.
#[derive(ValueEnum, Clone, Copy)]
enum Format {
    /// A JSON object a line
    Jsonl,
    /// A prompt a line
    Text,
    /// Comma-separated values under a row of names; a column custom_id has the ids, if there is one
    Csv,
}

#[derive(clap::Args)]
pub struct InputArgs {
    /// How the input is written [default: text for .txt, csv for .csv, else jsonl]
    #[arg(long, value_name = "FORMAT")]
    input_format: Option<Format>,
    /// The column of comma-separated values that has the prompts
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
}

impl InputArgs {
    /// The format of the file at `path`.
    pub fn format(&self, path: &Path) -> InputFormat {
        match self.input_format.unwrap_or_else(|| by_name(path)) {
            Format::Jsonl => InputFormat::JsonLines,
            Format::Text => InputFormat::Text,
            Format::Csv => InputFormat::Csv { prompt_column: self.prompt_column.clone() },
        }
    }
}

fn by_name(path: &Path) -> Format {
    let is = |path: &Path, ends: &[&str]| {
        path.extension().is_some_and(|end| ends.iter().any(|known| end.eq_ignore_ascii_case(known)))
    };
    let inner = path.with_extension("");
    let path = if is(path, &["gz", "zst"]) { &inner } else { path };
    match () {
        () if is(path, &["txt"]) => Format::Text,
        () if is(path, &["csv"]) => Format::Csv,
        () => Format::Jsonl,
    }
}

/// What lines are given that do not say it.
#[derive(clap::Args)]
#[command(next_help_heading = "Defaults of lines", allow_negative_numbers = true)]
pub struct DefaultArgs {
    /// Most tokens to generate [default: what the context holds, 16 for completions in OpenAI's format]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = parse_count)]
    max_tokens: Option<NonZeroUsize>,
    /// 0 takes the most likely token each time [default: 1]
    #[arg(long, visible_alias = "temp", value_name = "X")]
    #[arg(value_parser = number("a number, 0 or more", |x| x >= 0.0))]
    temperature: Option<f32>,
    /// Sample among the most likely tokens that make up this probability [default: 1]
    #[arg(long, value_name = "P", value_parser = number(PROBABILITY, is_probability))]
    top_p: Option<f32>,
    /// Sample among the K most likely tokens [default: all]
    #[arg(long, value_name = "K", value_parser = parse_whole::<usize>)]
    top_k: Option<usize>,
    /// Sample among tokens at least this likely relative to the most likely [default: 0]
    #[arg(long, value_name = "P", value_parser = number(PROBABILITY, is_probability))]
    min_p: Option<f32>,
    /// End at this text, which is left out; repeat for more
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Make the prompt of a plain line a user's message, which the chat template surrounds
    #[arg(long)]
    chat: bool,
    /// System message of chats that begin with none
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
}

impl DefaultArgs {
    pub fn defaults(&self) -> Defaults {
        // As it was written: 0.1, and not the nearest number of 32 bits.
        let decimal = |x: f32| x.to_string().parse().map_or(Value::Null, |x: f64| json!(x));
        let fields = [
            ("max_tokens", self.max_tokens.map(|tokens| json!(tokens))),
            ("temperature", self.temperature.map(decimal)),
            ("top_p", self.top_p.map(decimal)),
            ("top_k", self.top_k.map(|k| json!(k))),
            ("min_p", self.min_p.map(decimal)),
            ("stop", (!self.stop.is_empty()).then(|| json!(self.stop))),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        Defaults { fields, is_chat: self.chat, system: self.system.clone() }
    }

    /// What the manifest says of them.
    pub fn options(&self) -> impl Iterator<Item = (String, Value)> + use<> {
        let Defaults { fields, is_chat, system } = self.defaults();
        let options = [
            ("defaults", (!fields.is_empty()).then(|| json!(fields))),
            ("chat", is_chat.then(|| json!(true))),
            ("system", system.map(|text| json!(text))),
        ];
        options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)))
    }
}
