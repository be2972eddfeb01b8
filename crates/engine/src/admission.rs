//! Makes sequences of requests, on the caller's thread, and refuses those that could never end well.

use std::sync::Arc;

use model::RunnerSpec;
use tokenizer::Tokenizer;

use crate::constraint::Constrained;
use crate::embedding::Pooler;
use crate::error::{EngineError, Result};
use crate::events::{EventSender, EventSink};
use crate::generation::Generation;
use crate::request::{Client, EmbeddingRequest, Priority, Request};
use crate::sampling_params::SamplingParams;
use crate::sampling_state::SamplingState;
use crate::scoring::Scoring;
use crate::sequence::{Sequence, Task};
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
        let Request { prompt_token_ids, mut params, grammar, priority, client } = request;
        params.validate()?;
        self.check_prompt(&prompt_token_ids)?;
        for (idx, &(token_id, _)) in params.logit_bias.iter().enumerate() {
            self.check_token_id("logit_bias", idx, token_id)?;
        }
        let max_tokens = self.resolve_max_tokens(prompt_token_ids.len(), &params)?;
        if self.tokenizer.is_none() && !params.stop.is_empty() {
            return Err(EngineError::StopWithoutTokenizer { found: params.stop.len() });
        }

        let mut stop_token_ids = std::mem::take(&mut params.stop_token_ids);
        if let Some(tokenizer) = self.tokenizer.as_ref().filter(|_| !params.ignore_eos) {
            stop_token_ids.extend_from_slice(tokenizer.eog_tokens());
        }
        let stop = std::mem::take(&mut params.stop);
        let constraint =
            grammar.as_ref().map(Constrained::new).transpose().map_err(EngineError::Constraint)?;
        let generation = Generation {
            max_tokens,
            stop_token_ids,
            constraint,
            scoring: params.prompt_logprobs.map(Scoring::new),
            chosen: None,
            sampling: SamplingState::new(&params, &prompt_token_ids, self.tokenizer.as_ref()),
            text: self
                .tokenizer
                .as_ref()
                .map(|tokenizer| TextStream::new(Arc::clone(tokenizer), stop, params.control_tokens)),
            params,
        };
        // The last token generated is not run.
        let max_cached_tokens = prompt_token_ids.len() + max_tokens.saturating_sub(1);
        let task = Task::Generate(Box::new(generation));
        Ok(Self::sequence(prompt_token_ids, (priority, client), max_cached_tokens, task, sink))
    }

    /// As [`admit`](Self::admit), for an embedding.
    pub fn admit_embedding(
        &self,
        request: EmbeddingRequest,
        sink: impl EventSink + 'static,
    ) -> Result<Sequence> {
        let EmbeddingRequest { prompt_token_ids, pooling, priority, client } = request;
        self.check_prompt(&prompt_token_ids)?;
        let prompt = prompt_token_ids.len();
        self.check_length(prompt, 0)?;
        let task = Task::Embed(Pooler::new(pooling, self.spec.hidden_size));
        Ok(Self::sequence(prompt_token_ids, (priority, client), prompt, task, sink))
    }

    fn sequence(
        prompt_token_ids: Vec<u32>,
        (priority, client): (Priority, Client),
        max_cached_tokens: usize,
        task: Task,
        sink: impl EventSink + 'static,
    ) -> Sequence {
        Sequence {
            id: 0,
            priority,
            client,
            turn: 0,
            num_prompt_tokens: prompt_token_ids.len(),
            drafts: Vec::new(),
            token_ids: prompt_token_ids,
            max_cached_tokens,
            num_cached_tokens: 0,
            num_found_tokens: None,
            block_table: Vec::new(),
            page_names: Vec::new(),
            num_published_pages: 0,
            task,
            events: EventSender::new(sink),
            load: None,
        }
    }

    fn check_prompt(&self, prompt_token_ids: &[u32]) -> Result<()> {
        if prompt_token_ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let mut token_ids = prompt_token_ids.iter().enumerate();
        token_ids.try_for_each(|(idx, &token_id)| self.check_token_id("prompt_token_ids", idx, token_id))
    }

    fn check_token_id(&self, field: &str, idx: usize, found: u32) -> Result<()> {
        let vocab_size = self.spec.vocab_size;
        if (found as usize) < vocab_size {
            return Ok(());
        }
        Err(EngineError::TokenOutOfRange { field: format!("{field}[{idx}]"), found, vocab_size })
    }

    /// The most tokens that the request, the context and the pool allow.
    fn resolve_max_tokens(&self, prompt: usize, params: &SamplingParams) -> Result<usize> {
        let room = self.most_tokens().saturating_sub(prompt);
        let max_tokens = params.max_tokens.unwrap_or(room.max(1)).max(params.min_tokens);
        self.check_length(prompt, max_tokens).map(|()| max_tokens)
    }

    /// Tokens of the longest sequence.
    pub fn most_tokens(&self) -> usize {
        self.spec.max_seq_len.min(self.pool())
    }

    /// Tokens that all pages together hold.
    fn pool(&self) -> usize {
        self.spec.limits.num_pages * self.spec.page_size
    }

    fn check_length(&self, prompt: usize, max_tokens: usize) -> Result<()> {
        let max_seq_len = self.spec.max_seq_len;
        let tokens = prompt.saturating_add(max_tokens);
        if tokens <= self.most_tokens() {
            Ok(())
        } else if tokens > max_seq_len {
            Err(EngineError::ContextTooLong { prompt, max_tokens, max_seq_len })
        } else {
            Err(EngineError::PoolTooSmall { prompt, max_tokens, pool: self.pool() })
        }
    }
}
