//! How long an answer took, in llama.cpp's form.

use std::time::Instant;

use rustorch_llama::Usage;
use serde::Serialize;

/// When a request was asked and when its tokens came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    asked: Instant,
    /// Of all choices: the first token, the last of their first tokens, and the latest token.
    first: Option<Instant>,
    last_first: Option<Instant>,
    latest: Option<Instant>,
    num_tokens: usize,
    /// Whether what it took is told as nothing.
    is_hidden: bool,
}

/// Counts and times of a prompt and its answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Timings {
    /// Tokens of the prompt that were found in the prefix cache, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_n: Option<usize>,
    prompt_n: usize,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: usize,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl Times {
    pub fn start() -> Self {
        let asked = Instant::now();
        Self { asked, first: None, last_first: None, latest: None, num_tokens: 0, is_hidden: false }
    }

    /// The same counts, as if all had taken no time.
    pub fn hidden(self) -> Self {
        Self { is_hidden: true, ..self }
    }

    /// A token came, perhaps the first of its choice.
    pub fn token(&mut self, is_first: bool) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        if is_first {
            self.last_first = Some(now);
        }
        self.latest = Some(now);
        self.num_tokens += 1;
    }

    /// Nanoseconds since it was asked.
    pub fn until_now(&self) -> u64 {
        if self.is_hidden {
            return 0;
        }
        u64::try_from(self.asked.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Tokens that came.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// What it took until now: nanoseconds until the first tokens, and from there to the latest.
    pub fn nanoseconds(&self) -> (u64, u64) {
        if self.is_hidden {
            return (0, 0);
        }
        let until = self.last_first.unwrap_or(self.asked);
        let from = self.first.unwrap_or(self.asked);
        let nanoseconds = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
        };
        (nanoseconds(self.asked, until), nanoseconds(from, self.latest.unwrap_or(from)))
    }

    /// `num_prompt_tokens` of all prompts; `usage` once the answer is complete.
    pub fn timings(&self, num_prompt_tokens: usize, usage: Option<Usage>) -> Timings {
        let (prompt, predicted) = self.nanoseconds();
        let cache_n = usage.map(|usage| usage.cached_tokens);
        let prompt_n = num_prompt_tokens - cache_n.unwrap_or(0).min(num_prompt_tokens);
        let (prompt_ms, predicted_ms) = (prompt as f64 / 1e6, predicted as f64 / 1e6);
        // No JSON has infinity or what is not a number.
        let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Timings {
            cache_n,
            prompt_n,
            prompt_ms,
            prompt_per_token_ms: over(prompt_ms, prompt_n as f64),
            prompt_per_second: over(1e3 * prompt_n as f64, prompt_ms),
            predicted_n: self.num_tokens,
            predicted_ms,
            predicted_per_token_ms: over(predicted_ms, self.num_tokens as f64),
            predicted_per_second: over(1e3 * self.num_tokens as f64, predicted_ms),
        }
    }
}
