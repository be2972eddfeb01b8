//! Perplexity of a text, measured as llama.cpp does so that figures compare.

use crate::{Error, LlamaModel, Result};

/// `exp` of the mean negative log-likelihood, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Perplexity over the tokens scored.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// Windows that the text was cut into.
    pub windows: usize,
}

/// Cuts `tokens` into windows of `window` tokens, runs each alone and scores the predictions of its second half, so that
/// every scored token has at least half a window of context. `bos`, if given, replaces the first token of each window.
/// A rest shorter than a window is left out. `progress(windows done, result so far)` is told after each window.
///
/// # Errors
/// A window shorter than 4 or longer than the context, fewer tokens than two windows, or a token out of the vocabulary.
pub fn perplexity(
    model: &mut LlamaModel,
    tokens: &[u32],
    window: usize,
    bos: Option<u32>,
    mut progress: impl FnMut(usize, Perplexity),
) -> Result<Perplexity> {
    let max_seq_len = model.config().max_seq_len;
    if !(4..=max_seq_len).contains(&window) {
        let expected = if window < 4 {
            "at least 4".to_owned()
        } else {
            format!("at most the context of {max_seq_len}")
        };
        return Err(Error::InvalidValue { what: "perplexity window", expected, found: window.to_string() });
    }
    if tokens.len() < 2 * window {
        let expected = format!("at least {} tokens, two windows of {window}", 2 * window);
        return Err(Error::InvalidValue {
            what: "text",
            expected,
            found: format!("{} tokens", tokens.len()),
        });
    }
    let mut scored = Scored::default();
    for (index, source) in tokens.chunks_exact(window).enumerate() {
        let mut chunk = source.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        model.forward_all(&chunk, |position, logits| {
            // The last token's prediction lies outside the window.
            if (window / 2..window - 1).contains(&position) {
                scored.add(negative_log_likelihood(logits, source[position + 1]));
            }
        })?;
        progress(index + 1, scored.result(index + 1));
    }
    Ok(scored.result(tokens.len() / window))
}

/// Running sums of negative log-likelihoods.
#[derive(Default)]
struct Scored {
    sum: f64,
    sum_of_squares: f64,
    tokens: usize,
}

impl Scored {
    fn add(&mut self, nll: f64) {
        self.sum += nll;
        self.sum_of_squares += nll * nll;
        self.tokens += 1;
    }

    fn result(&self, windows: usize) -> Perplexity {
        let n = self.tokens as f64;
        let mean = self.sum / n;
        let variance = (self.sum_of_squares / n - mean * mean).max(0.0);
        let value = mean.exp();
        let standard_error = value * (variance / (n - 1.0).max(1.0)).sqrt();
        Perplexity { value, standard_error, tokens: self.tokens, windows }
    }
}

/// `-ln softmax(logits)[token]`, in f64.
fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    sum.ln() - f64::from(logits[token as usize] - max)
}
