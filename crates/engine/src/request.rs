//! What is asked of the engine and what it answers.

use crate::constraint::SharedGrammar;
use crate::error::{EngineError, Result};
use crate::sampling_params::SamplingParams;

/// One sequence to generate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    /// The prompt as the model shall see it; nothing (such as BOS) is added.
    pub prompt_token_ids: Vec<u32>,
    /// How tokens are chosen and when generation ends.
    pub params: SamplingParams,
    /// What the generated text must be.
    pub grammar: Option<SharedGrammar>,
    /// Who goes first.
    pub priority: Priority,
    /// Who asks: of those of one priority that wait, clients take turns, by their weights.
    pub client: Client,
}

/// One prompt to embed: the state of the model after its last layer and norm, where logits would come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EmbeddingRequest {
    /// The prompt as the model shall see it; nothing (such as BOS) is added.
    pub prompt_token_ids: Vec<u32>,
    /// What becomes of the states of the single tokens.
    pub pooling: Pooling,
    /// Who goes first.
    pub priority: Priority,
    /// Who asks: of those of one priority that wait, clients take turns, by their weights.
    pub client: Client,
}

/// How the states of a prompt's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// That of the last token, which has seen all others.
    #[default]
    Last,
    /// Their mean. It needs the state of every token, so such a prompt finds nothing in the prefix cache.
    Mean,
}

/// Somebody who asks, as far as the caller tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClientId(pub u64);

/// Somebody who asks, and how often it is their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Client {
    /// Who.
    pub id: ClientId,
    /// Sequences that begin for each one of a client of weight 1, while both have some waiting.
    pub weight: Weight,
}

impl From<ClientId> for Client {
    fn from(id: ClientId) -> Self {
        Self { id, weight: Weight::default() }
    }
}

/// A client's share of the turns: 1 to [`Weight::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

impl Weight {
    /// The largest.
    pub const MAX: u16 = 1000;

    /// `None` beyond 1 to [`MAX`](Self::MAX).
    pub fn new(weight: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&weight).then_some(Self(weight))
    }

    /// As a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

/// Who goes first. Requests of equal priority begin in the order of their arrival if they are one client's; clients take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Begins before all waiting low ones, and takes the place of running ones if there is no other.
    #[default]
    Normal,
    /// Runs on what others leave. It gets nowhere while they leave nothing, but loses no token that it has generated.
    Low,
}

/// What happens to a request: its prompt's log-probabilities if it asked for them, any number of tokens, then exactly one `Finished` or `Error`; or one `Embedding` or `Error`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The log-probabilities of the prompt's tokens from the second on, if the request asked for them: before any token.
    Prompt(Vec<TokenLogprobs>),
    /// A token was generated.
    Token(TokenEvent),
    /// Generation ended as the request wanted it to.
    Finished {
        /// Why.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
        /// The stop string that ended the text, if one did.
        stop_string: Option<String>,
    },
    /// An [`EmbeddingRequest`] was served.
    Embedding {
        /// `[hidden_size]` values of Euclidean length 1.
        values: Vec<f32>,
        /// What it took; no token is generated.
        usage: Usage,
    },
    /// The request ended early.
    Error(EngineError),
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// The token, which may be the one that ends the sequence.
    pub token_id: u32,
    /// Text that this token completes: whole characters only, and none that may turn out to be the beginning of a stop
    /// string. Often empty; the last token brings all that was held back. Always empty without a tokenizer.
    pub text: String,
    /// Log-probabilities, if the request asked for them.
    pub logprobs: Option<TokenLogprobs>,
    /// How many of the tokens so far are certain to have a part in the text. A token that ends the sequence has none, nor
    /// has one that is cut away by a stop string.
    pub num_in_text: usize,
}

/// Natural logarithms of the model's own probabilities, before bias, penalties and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// That of the token.
    pub logprob: f32,
    /// Its place among all, 1 for the most likely; of equal ones the lowest id comes first.
    pub rank: usize,
    /// The most likely tokens with theirs, most likely first, equal ones by ascending id. The token itself is in this
    /// list only if it belongs there.
    pub top: Vec<(u32, f32)>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-generation token, a stop token or a stop string.
    Stop,
    /// `max_tokens` were generated, or the context is full.
    Length,
}

impl FinishReason {
    /// The name that OpenAI's API gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Token counts of a finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, the one that ended the sequence included.
    pub completion_tokens: usize,
    /// Prompt tokens whose K and V were found in the cache when the sequence was first given pages.
    pub cached_tokens: usize,
}

/// All of a request's events in one.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The generated tokens.
    pub token_ids: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Of each token, if asked for; otherwise empty.
    pub logprobs: Vec<TokenLogprobs>,
    /// Of the prompt's tokens from the second on, if asked for.
    pub prompt_logprobs: Option<Vec<TokenLogprobs>>,
    /// Why the sequence ended.
    pub reason: FinishReason,
    /// What it took.
    pub usage: Usage,
}

impl Completion {
    /// Gathers the events of one request.
    ///
    /// # Errors
    /// The error that ended the request; [`EngineError::Stopped`] if the events end before it does.
    pub fn collect(events: impl IntoIterator<Item = Event>) -> Result<Self> {
        let (mut token_ids, mut text, mut logprobs) = (Vec::new(), String::new(), Vec::new());
        let mut prompt_logprobs = None;
        for event in events {
            match event {
                Event::Prompt(logprobs) => prompt_logprobs = Some(logprobs),
                Event::Token(token) => {
                    token_ids.push(token.token_id);
                    text.push_str(&token.text);
                    logprobs.extend(token.logprobs);
                }
                Event::Finished { reason, usage, .. } => {
                    return Ok(Self { token_ids, text, logprobs, prompt_logprobs, reason, usage });
                }
                Event::Embedding { .. } => {}
                Event::Error(error) => return Err(error),
            }
        }
        Err(EngineError::Stopped)
    }
}

/// What an [`EmbeddingRequest`] yields.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// `[hidden_size]` values of Euclidean length 1.
    pub values: Vec<f32>,
    /// What it took.
    pub usage: Usage,
}

impl Embedding {
    /// Waits for the embedding among the events of one request.
    ///
    /// # Errors
    /// The error that ended the request; [`EngineError::Stopped`] if the events end without an embedding.
    pub fn collect(events: impl IntoIterator<Item = Event>) -> Result<Self> {
        for event in events {
            match event {
                Event::Embedding { values, usage } => return Ok(Self { values, usage }),
                Event::Error(error) => return Err(error),
                Event::Prompt(_) | Event::Token(_) | Event::Finished { .. } => {}
            }
        }
        Err(EngineError::Stopped)
    }
}
