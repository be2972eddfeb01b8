//! Options that say what the output must be.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustorch_llama::{GrammarSpec, Grammars, SharedGrammar, Tokenizer};

/// What the output must be.
#[derive(clap::Args)]
#[command(next_help_heading = "Structured output")]
pub struct StructureArgs {
    /// Generate a JSON object
    #[arg(long, group = "structure")]
    json: bool,
    /// Generate JSON that the schema in this file accepts
    #[arg(long, value_name = "FILE", group = "structure")]
    json_schema: Option<PathBuf>,
    /// Generate a match of this regular expression
    #[arg(long, value_name = "REGEX", group = "structure", allow_hyphen_values = true)]
    regex: Option<String>,
    /// Generate a sentence of the grammar in this file: llama.cpp's GBNF (with `::=`), or Lark
    #[arg(long, value_name = "FILE", group = "structure")]
    grammar: Option<PathBuf>,
}

impl StructureArgs {
    /// The grammar, if one was asked for.
    pub fn compile(&self, tokenizer: &Arc<Tokenizer>) -> Result<Option<SharedGrammar>> {
        let (option, spec) = if self.json {
            ("--json", GrammarSpec::JsonObject)
        } else if let Some(path) = &self.json_schema {
            let schema = serde_json::from_str(&read(path)?).with_context(|| path.display().to_string())?;
            ("--json-schema", GrammarSpec::JsonSchema(schema))
        } else if let Some(regex) = &self.regex {
            ("--regex", GrammarSpec::Regex(regex.clone()))
        } else if let Some(path) = &self.grammar {
            ("--grammar", GrammarSpec::grammar(&read(path)?))
        } else {
            return Ok(None);
        };
        let grammar = Grammars::new(Arc::clone(tokenizer)).compile(&spec);
        grammar.map(Some).map_err(|error| anyhow!("{option}: {error}"))
    }
}

fn read(path: &PathBuf) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}
