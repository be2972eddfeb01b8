//! From descriptions of grammars to grammars over one vocabulary, under limits.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use tokenizer::Tokenizer;

use crate::constraint::Constraint;
use crate::error::{GrammarError, Result};
use crate::rule::Rule;
use crate::{gbnf, lark, schema};

/// What a text must be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Spec {
    /// A JSON object.
    JsonObject,
    /// JSON that a schema (draft 2020-12, or what earlier drafts have in common with it) accepts.
    JsonSchema(Value),
    /// A match of a regular expression, from the beginning to the end.
    Regex(String),
    /// One of these strings.
    Choice(Vec<String>),
    /// A sentence of a grammar in the syntax of Lark, as llguidance has it.
    Lark(String),
    /// A sentence of a grammar in llama.cpp's GBNF.
    Gbnf(String),
    /// A sentence of a rule.
    Rule(Rule),
    /// Any text; after the first of the openings in it, a sentence of a rule.
    After(Vec<String>, Rule),
}

impl Spec {
    /// A grammar in GBNF if it has its `::=`, or else in Lark's syntax.
    pub fn grammar(text: &str) -> Self {
        if text.contains("::=") { Self::Gbnf(text.to_owned()) } else { Self::Lark(text.to_owned()) }
    }
}

/// Most bytes of a grammar. Large schemas in practice have tens of kilobytes.
const MAX_BYTES: usize = 256 << 10;
/// Grammars that are kept, so that equal requests compile once.
const CACHED: usize = 32;
/// Longer tokens are in no mask: the trie has no room for them.
const MAX_TOKEN_BYTES: usize = 1000;

/// Compiles grammars for one model's vocabulary.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    /// The vocabulary as a trie; made on first use, since it takes a while and memory.
    factory: OnceLock<ParserFactory>,
    /// The latest last.
    cache: Mutex<Vec<(Spec, Grammar)>>,
}

/// A compiled grammar. Clones share it.
#[derive(Clone)]
pub struct Grammar(Arc<Compiled>);

struct Compiled {
    tokenizer: Arc<Tokenizer>,
    matcher: Mutex<Matcher>,
    openings: Arc<[String]>,
}

impl Grammars {
    /// For the vocabulary of this tokenizer.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, factory: OnceLock::new(), cache: Mutex::new(Vec::new()) }
    }

    /// The tokenizer that was given.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Compiles a grammar, or finds it compiled.
    ///
    /// # Errors
    /// If it is malformed, has a part that would not be enforced, or is beyond the limits of size and complexity.
    pub fn compile(&self, spec: &Spec) -> Result<Grammar> {
        let cached = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, grammar)) = cached().iter().find(|(known, _)| known == spec) {
            return Ok(grammar.clone());
        }
        let grammar = self.compile_anew(spec)?;
        let mut cache = cached();
        if cache.len() == CACHED {
            cache.remove(0);
        }
        cache.push((spec.clone(), grammar.clone()));
        Ok(grammar)
    }

    fn compile_anew(&self, spec: &Spec) -> Result<Grammar> {
        let factory = self.factory()?;
        let source = source(spec)?;
        let parser = factory.create_parser(source).map_err(|error| refusal(spec, &error.to_string()))?;
        let matcher = Matcher::new(Ok(parser));
        // A grammar without a sentence is told here, not after the prompt has run.
        matcher.deep_clone().compute_mask_or_eos().map_err(|error| refusal(spec, &error.to_string()))?;
        if let Some(error) = matcher.get_error() {
            return Err(refusal(spec, &error));
        }
        let openings = match spec {
            Spec::After(openings, _) => openings.as_slice().into(),
            _ => Arc::from([]),
        };
        let tokenizer = Arc::clone(&self.tokenizer);
        Ok(Grammar(Arc::new(Compiled { tokenizer, matcher: Mutex::new(matcher), openings })))
    }

    fn factory(&self) -> Result<&ParserFactory> {
        if let Some(factory) = self.factory.get() {
            return Ok(factory);
        }
        let factory = factory(&self.tokenizer).map_err(|error| GrammarError::Stuck(error.to_string()))?;
        // Of two threads that made one, the first wins.
        Ok(self.factory.get_or_init(|| factory))
    }
}

impl Grammar {
    /// The beginning of a text.
    pub fn start(&self) -> Constraint {
        let Compiled { tokenizer, matcher, openings } = &*self.0;
        // Deep, so that neither time nor limits depend on other texts.
        let matcher = matcher.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Constraint::new(Arc::clone(tokenizer), matcher, openings)
    }
}

impl PartialEq for Grammar {
    /// Whether one is a clone of the other.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The limits of compiling and of a mask.
fn limits() -> ParserLimits {
    ParserLimits { verbose_errors: false, ..ParserLimits::default() }
}

fn factory(tokenizer: &Tokenizer) -> std::result::Result<ParserFactory, Box<dyn std::error::Error>> {
    let word = |id: u32| {
        let bytes = tokenizer.token_bytes(id);
        if bytes.len() > MAX_TOKEN_BYTES {
            return Vec::new();
        }
        if tokenizer.is_control(id) || tokenizer.is_eog(id) {
            return [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
        }
        bytes.to_vec()
    };
    let vocab_size = u32::try_from(tokenizer.vocab_size())?;
    let words: Vec<Vec<u8>> = (0..vocab_size).map(word).collect();
    let eos = tokenizer.eog_tokens().first().copied().unwrap_or(INVALID_TOKEN);
    let trie = TokTrie::from(&TokRxInfo::new(vocab_size, eos), &words);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).or_else(|_| {
        // Without slices masks take longer, but vocabularies of a few tokens have none.
        ParserFactory::new(&env, InferenceCapabilities::default(), &[])
    })?;
    factory.quiet();
    *factory.limits_mut() = limits();
    Ok(factory)
}

/// What the library is given.
fn source(spec: &Spec) -> Result<TopLevelGrammar> {
    match spec {
        Spec::JsonObject => {
            let object = Value::Object([("type".to_owned(), "object".into())].into_iter().collect());
            source(&Spec::JsonSchema(object))
        }
        Spec::JsonSchema(value) => {
            check_size("schema", value.to_string().len())?;
            Ok(TopLevelGrammar::from_json_schema(schema::normalise(value)?))
        }
        Spec::Regex(regex) => {
            check_size("regex", regex.len())?;
            let regex = lark::without_anchors(regex);
            if regex.is_empty() {
                return Err(GrammarError::Regex("expected one that is not empty".to_owned()));
            }
            Ok(TopLevelGrammar::from_lark(format!("start: {}", lark::regex(regex))))
        }
        Spec::Choice(choices) => {
            check_size("choice", choices.iter().map(String::len).sum())?;
            if choices.is_empty() || choices.iter().any(String::is_empty) {
                let found = if choices.is_empty() { "none" } else { "an empty one" };
                return Err(GrammarError::Choice { found: found.to_owned() });
            }
            let options: Vec<String> = choices.iter().map(|choice| lark::escape(choice)).collect();
            Ok(TopLevelGrammar::from_lark(format!("start: {}", lark::regex(&options.join("|")))))
        }
        Spec::Lark(text) => {
            check_size("grammar", text.len())?;
            lark::check(text)?;
            Ok(TopLevelGrammar::from_lark(text.clone()))
        }
        Spec::Gbnf(text) => {
            check_size("grammar", text.len())?;
            Ok(TopLevelGrammar::from_lark(gbnf::to_lark(text)?))
        }
        Spec::Rule(rule) | Spec::After(_, rule) => {
            let grammar = rule.grammar()?;
            check_size("grammar", grammar.grammars.iter().map(size).sum())?;
            Ok(grammar)
        }
    }
}

fn size(grammar: &llguidance::api::GrammarWithLexer) -> usize {
    grammar.lark_grammar.as_ref().map_or(0, String::len)
        + grammar.json_schema.as_ref().map_or(0, |schema| schema.to_string().len())
}

fn check_size(what: &'static str, found: usize) -> Result<()> {
    if found <= MAX_BYTES { Ok(()) } else { Err(GrammarError::TooLarge { what, limit: MAX_BYTES, found }) }
}

/// The library's refusal, as an error of the kind of grammar; its first line says what is wrong.
fn refusal(spec: &Spec, message: &str) -> GrammarError {
    let first = message.lines().next().unwrap_or_default();
    // A regular expression's error shows it first, and says last what is wrong.
    let last = message.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
    let message = last.unwrap_or(first).to_owned();
    match spec {
        Spec::JsonObject | Spec::JsonSchema(_) => GrammarError::Schema { path: String::new(), message },
        Spec::Regex(_) => GrammarError::Regex(message),
        Spec::Choice(_) => GrammarError::Choice { found: message },
        Spec::Lark(_) | Spec::Gbnf(_) | Spec::Rule(_) | Spec::After(..) => GrammarError::Lark(message),
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}
