//! Grammars of crate `grammar` for the engine, which knows constraints by their trait alone.

use std::fmt;
use std::sync::Arc;

use engine::SharedGrammar;
use grammar::{GrammarError, Spec};
use tokenizer::Tokenizer;

/// Compiles grammars for one model's vocabulary. What compiling needs of the vocabulary is made on first use.
#[derive(Debug)]
pub struct Grammars(grammar::Grammars);

impl Grammars {
    /// For the vocabulary of this tokenizer.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self(grammar::Grammars::new(tokenizer))
    }

    /// The tokenizer that was given.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        self.0.tokenizer()
    }

    /// Compiles a grammar for [`Request::grammar`](crate::Request::grammar). It may take some milliseconds.
    ///
    /// # Errors
    /// If it is malformed, has a part that would not be enforced, or is beyond the limits of size and complexity.
    pub fn compile(&self, spec: &Spec) -> Result<SharedGrammar, GrammarError> {
        self.0.compile(spec).map(|grammar| SharedGrammar(Arc::new(Compiled(grammar))))
    }
}

struct Compiled(grammar::Grammar);

impl engine::Grammar for Compiled {
    fn start(&self) -> Box<dyn engine::Constraint> {
        Box::new(Text(self.0.start()))
    }
}

struct Text(grammar::Constraint);

impl engine::Constraint for Text {
    fn is_free(&self) -> bool {
        self.0.is_free()
    }

    fn mask(&mut self) -> Result<Vec<u32>, String> {
        self.0.mask().map(grammar::Mask::into_words).map_err(message)
    }

    fn may_end(&mut self) -> Result<bool, String> {
        self.0.may_end().map_err(message)
    }

    fn commit(&mut self, token_id: u32) -> Result<(), String> {
        self.0.commit(token_id).map_err(message)
    }
}

fn message(error: impl fmt::Display) -> String {
    error.to_string()
}
