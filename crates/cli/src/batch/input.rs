//! The options of how an input is read, and of what its lines are given that do not say it.

use std::num::NonZeroUsize;
use std::path::Path;

use batch::{DefaultFields, Defaults, InputFormat};
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;

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
        match self.input_format {
            None => InputFormat::by_name(path, &self.prompt_column),
            Some(Format::Jsonl) => InputFormat::JsonLines,
            Some(Format::Text) => InputFormat::Text,
            Some(Format::Csv) => InputFormat::Csv { prompt_column: self.prompt_column.clone() },
        }
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
        let fields = DefaultFields {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            stop: self.stop.clone(),
        };
        Defaults { fields: fields.into(), is_chat: self.chat, system: self.system.clone() }
    }
}
