//! How a request's tokens are chosen and when generation ends.

use tokenizer::ControlTokens;

use crate::error::{EngineError, Result};

/// How a request's tokens are chosen and when generation ends.
///
/// The names, ranges and defaults are those of OpenAI's API and, where it has none, of vLLM or llama.cpp. The operations
/// apply to the logits in this order: `logit_bias`, `repetition_penalty`, `frequency_penalty`, `presence_penalty`, `dry`,
/// `top_n_sigma`, `temperature`, `top_k`, `typical_p`, `top_p`, `min_p`, `xtc`; then a number is drawn from the request's own
/// generator. That is llama.cpp's order, but for the temperature, which comes first as in OpenAI's API and vLLM. `mirostat`
/// takes the place of everything behind the temperature and of `top_n_sigma`.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits. 0 is greedy: the highest logit, of equal ones the lowest id, and nothing is drawn. At least 0.
    pub temperature: f32,
    /// Keeps this many of the most likely tokens, of equal ones the lowest ids. 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most likely tokens whose probabilities reach this sum (those that `top_k` kept count as 1),
    /// never less than one. 0 to 1; 1 keeps all.
    pub top_p: f32,
    /// Keeps the tokens at least this many times as likely as the most likely one. 0 to 1; 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens whose probabilities are nearest to what is expected of one (locally typical sampling), as few as
    /// reach this sum. 0 to 1; 1 keeps all.
    pub typical_p: f32,
    /// Keeps the tokens whose logits are at most so many standard deviations of all logits below the highest. 0 or less
    /// keeps all.
    pub top_n_sigma: f32,
    /// Takes away the most likely tokens at times, so that others are chosen.
    pub xtc: Xtc,
    /// Keeps the text about as surprising as is wanted.
    pub mirostat: Option<Mirostat>,
    /// Penalises tokens that would continue a repetition.
    pub dry: Dry,
    /// Divides the logit of a token that occurs in the prompt or was generated, if it is positive, and multiplies it
    /// otherwise. Greater than 0; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit as many times as it was generated. 0 changes nothing.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of a token that was generated. 0 changes nothing.
    pub presence_penalty: f32,
    /// Seeds the request's generator. Equal requests with equal seeds give equal tokens, whatever else is running.
    pub seed: u64,
    /// Added to the logits of these tokens; of a token that is named twice, both count. Minus infinity forbids a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Strings that end generation; neither they nor what follows is in the text. The one that is complete first counts.
    pub stop: Vec<String>,
    /// Tokens that end generation, beside the tokenizer's end-of-generation tokens. They have no text.
    pub stop_token_ids: Vec<u32>,
    /// Generates on after an end-of-generation token, as after any other.
    pub ignore_eos: bool,
    /// Most tokens to generate; with 0 the prompt is run alone. Without it the context, or the whole page pool if that is smaller, is filled.
    pub max_tokens: Option<usize>,
    /// The first tokens, so many, end nothing: stop tokens are not sampled and stop strings not looked for in them.
    pub min_tokens: usize,
    /// Asks for log-probabilities: of each generated token and of so many of the most likely ones.
    pub logprobs: Option<usize>,
    /// Asks for log-probabilities of the prompt: of each token but the first and of so many of the most likely ones. Such a
    /// prompt finds nothing in the prefix cache, and its chunks are as short as the rows of the LM head are few.
    pub prompt_logprobs: Option<usize>,
    /// Whether control tokens of the answer show in its text. A token that ends it never does.
    pub control_tokens: ControlTokens,
}

/// "Exclude top choices": with this probability, all tokens at least so likely are taken away but the least likely of them.
/// One number is drawn for each token to decide that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Xtc {
    /// 0 to 1; 0 takes nothing away.
    pub probability: f32,
    /// 0 to 1; above 0.5 there can be no two such tokens.
    pub threshold: f32,
}

impl Default for Xtc {
    fn default() -> Self {
        Self { probability: 0.0, threshold: 0.1 }
    }
}

/// Mirostat, version 2 (Basu et al., 2021): tokens that surprise more than a limit are taken away, and the limit follows from
/// how much those that were generated surprised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirostat {
    /// The surprise that is wanted, in bits. At least 0.
    pub tau: f32,
    /// How fast the limit follows. At least 0.
    pub eta: f32,
}

impl Default for Mirostat {
    fn default() -> Self {
        Self { tau: 5.0, eta: 0.1 }
    }
}

/// "Don't repeat yourself": a token that would continue a repetition of n tokens loses `multiplier * base^(n - allowed_length)`
/// of its logit, if n is at least `allowed_length`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    /// At least 0; 0 penalises nothing.
    pub multiplier: f32,
    /// At least 1.
    pub base: f32,
    /// The shortest repetition that is penalised.
    pub allowed_length: usize,
    /// Tokens of prompt and answer, from the last one back, in which repetitions are looked for; all without it.
    pub penalty_last_n: Option<usize>,
    /// Strings that no repetition reaches over.
    pub sequence_breakers: Vec<String>,
}

impl Default for Dry {
    fn default() -> Self {
        let sequence_breakers = ["\n", ":", "\"", "*"].map(str::to_owned).to_vec();
        Self { multiplier: 0.0, base: 1.75, allowed_length: 2, penalty_last_n: None, sequence_breakers }
    }
}

impl Default for SamplingParams {
    /// Draws from the model's own distribution until it ends the text.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc: Xtc::default(),
            mirostat: None,
            dry: Dry::default(),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
            logit_bias: Vec::new(),
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            max_tokens: None,
            min_tokens: 0,
            logprobs: None,
            prompt_logprobs: None,
            control_tokens: ControlTokens::Hide,
        }
    }
}

impl SamplingParams {
    /// Greedy decoding.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether the highest logit is taken as it is, and no log-probability asked for.
    pub(crate) fn takes_highest_logit(&self) -> bool {
        self.temperature == 0.0 && self.uses_logits_as_they_are()
    }

    /// Whether nothing is added to logits, and no log-probability asked for.
    fn uses_logits_as_they_are(&self) -> bool {
        self.logprobs.is_none()
            && self.logit_bias.is_empty()
            && self.dry.multiplier == 0.0
            && (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) == (1.0, 0.0, 0.0)
    }

    /// Whether a token takes one draw from the logits as they are, with no more than `top_k`, `top_p` and `min_p` between.
    pub(crate) fn draws_plainly(&self) -> bool {
        let keeps_all = self.typical_p >= 1.0 && self.top_n_sigma <= 0.0 && self.xtc.probability <= 0.0;
        self.temperature > 0.0 && self.uses_logits_as_they_are() && keeps_all && self.mirostat.is_none()
    }

    /// Checks every field that can be judged without a model.
    ///
    /// # Errors
    /// [`EngineError::InvalidParam`] for the first field that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let unit = 0.0..=1.0;
        let Mirostat { tau, eta } = self.mirostat.unwrap_or_default();
        let floats = [
            ("temperature", self.temperature, self.temperature >= 0.0, "a number of at least 0"),
            ("top_p", self.top_p, unit.contains(&self.top_p), "0 to 1"),
            ("min_p", self.min_p, unit.contains(&self.min_p), "0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0,
                "a number above 0",
            ),
            ("typical_p", self.typical_p, unit.contains(&self.typical_p), "0 to 1"),
            ("top_n_sigma", self.top_n_sigma, true, "a finite number"),
            ("xtc_probability", self.xtc.probability, unit.contains(&self.xtc.probability), "0 to 1"),
            ("xtc_threshold", self.xtc.threshold, unit.contains(&self.xtc.threshold), "0 to 1"),
            ("mirostat_tau", tau, tau >= 0.0, "a number of at least 0"),
            ("mirostat_eta", eta, eta >= 0.0, "a number of at least 0"),
            ("dry_multiplier", self.dry.multiplier, self.dry.multiplier >= 0.0, "a number of at least 0"),
            ("dry_base", self.dry.base, self.dry.base >= 1.0, "a number of at least 1"),
            ("frequency_penalty", self.frequency_penalty, true, "a finite number"),
            ("presence_penalty", self.presence_penalty, true, "a finite number"),
        ];
        for (name, value, in_range, expected) in floats {
            check(in_range && value.is_finite(), name, expected, || value.to_string())?;
        }
        for &(token_id, bias) in &self.logit_bias {
            let expected = "finite numbers, or minus infinity to forbid a token";
            check(bias < f32::INFINITY, "logit_bias", expected, || format!("{bias} for token {token_id}"))?;
        }
        for (name, strings) in [("stop", &self.stop), ("dry_sequence_breakers", &self.dry.sequence_breakers)]
        {
            let empty = strings.iter().position(String::is_empty);
            check(empty.is_none(), name, "strings that are not empty", || {
                format!("an empty one at index {}", empty.unwrap_or_default())
            })?;
        }
        if let Some(max_tokens) = self.max_tokens {
            let expected = format!("at most max_tokens, which is {max_tokens}");
            check(self.min_tokens <= max_tokens, "min_tokens", &expected, || self.min_tokens.to_string())?;
        }
        Ok(())
    }

    /// Whether any penalty depends on the tokens so far.
    pub(crate) fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
}

fn check(holds: bool, name: &'static str, expected: &str, found: impl Fn() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(EngineError::InvalidParam { name, expected: expected.to_owned(), found: found() })
}
