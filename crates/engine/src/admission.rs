//! Makes sequences of requests, on the caller's thread, and refuses those that could never end well.

use std::sync::Arc;

use tokenizer::Tokenizer;

use crate::error::{EngineError, Result};
use crate::events::{EventSender, EventSink};
use crate::request::Request;
use crate::runner::RunnerSpec;
use crate::sampler::SamplingState;
use crate::sampling_params::SamplingParams;
use crate::sequence::Sequence;
use crate::text::TextStream;

/// What a request is judged by.
#[derive(Debug)]
pub(crate) struct Admission {
    spec: RunnerSpec,
    tokenizer: Option<Arc<Tokenizer>>,
}

impl Admission {
    pub fn new(spec: RunnerSpec, tokenizer: Option<Arc<Tokenizer>>) -> Self {
        Self { spec, tokenizer }
    }

    /// A sequence for `request` that reports to `sink`, which is not called if it is refused.
    pub fn admit(&self, request: Request, sink: impl EventSink + 'static) -> Result<Sequence> {
        let Request { prompt_token_ids, mut params } = request;
        params.validate()?;
        self.check_token_ids(&prompt_token_ids, &params)?;
        let max_tokens = self.resolve_max_tokens(prompt_token_ids.len(), &params)?;
        if self.tokenizer.is_none() && !params.stop.is_empty() {
            return Err(EngineError::StopWithoutTokenizer { found: params.stop.len() });
        }

        let mut stop_token_ids = std::mem::take(&mut params.stop_token_ids);
        if let Some(tokenizer) = self.tokenizer.as_ref().filter(|_| !params.ignore_eos) {
            stop_token_ids.extend_from_slice(tokenizer.eog_tokens());
        }
        let stop = std::mem::take(&mut params.stop);
        Ok(Sequence {
            id: 0,
            num_prompt_tokens: prompt_token_ids.len(),
            num_cached_tokens: 0,
            num_found_tokens: 0,
            block_table: Vec::new(),
            max_tokens,
            stop_token_ids,
            sampling: SamplingState::new(&params, &prompt_token_ids),
            text: self.tokenizer.as_ref().map(|tokenizer| TextStream::new(Arc::clone(tokenizer), stop)),
            events: EventSender::new(sink),
            token_ids: prompt_token_ids,
            params,
        })
    }

    fn check_token_ids(&self, prompt_token_ids: &[u32], params: &SamplingParams) -> Result<()> {
        let vocab_size = self.spec.vocab_size;
        if prompt_token_ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let check = |field: &str, idx: usize, found: u32| match (found as usize) < vocab_size {
            true => Ok(()),
            false => {
                Err(EngineError::TokenOutOfRange { field: format!("{field}[{idx}]"), found, vocab_size })
            }
        };
        for (idx, &token_id) in prompt_token_ids.iter().enumerate() {
            check("prompt_token_ids", idx, token_id)?;
        }
        for (idx, &(token_id, _)) in params.logit_bias.iter().enumerate() {
            check("logit_bias", idx, token_id)?;
        }
        Ok(())
    }

    /// The most tokens that the request, the context and the pool allow.
    fn resolve_max_tokens(&self, prompt: usize, params: &SamplingParams) -> Result<usize> {
        let max_seq_len = self.spec.max_seq_len;
        let pool = self.spec.num_pages * self.spec.page_size;
        let room = max_seq_len.min(pool).saturating_sub(prompt);
        let max_tokens = params.max_tokens.unwrap_or(room).max(params.min_tokens).max(1);
        if max_tokens <= room {
            Ok(max_tokens)
        } else if prompt.saturating_add(max_tokens) > max_seq_len {
            Err(EngineError::ContextTooLong { prompt, max_tokens, max_seq_len })
        } else {
            Err(EngineError::PoolTooSmall { prompt, max_tokens, pool })
        }
    }
}
