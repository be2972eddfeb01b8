//! What a request asks of the engine.

use rustorch_llama::{Client, EmbeddingRequest, EngineHandle, EventSink, Priority, Request};

use crate::error::ApiError;

/// The sequences of a request: one for each choice of each prompt, or for each text to embed.
#[derive(Debug)]
pub struct Work {
    pub(crate) sequences: Sequences,
    /// The field that demands a form of the answer.
    pub(crate) form_field: Option<String>,
    /// Whether the body says how many tokens to generate; if not, it is no more than there is room for.
    pub(crate) is_length_given: bool,
    /// Whether texts to embed that are longer than the context are cut.
    pub(crate) cuts: bool,
    /// Gives errors the names of the body's fields, if it was converted.
    pub(crate) rename: Rename,
}

pub(crate) type Rename = fn(ApiError) -> ApiError;

#[derive(Debug)]
pub(crate) enum Sequences {
    Generate(Vec<Request>),
    Embed(Vec<EmbeddingRequest>),
}

impl Work {
    /// Number of sequences.
    #[allow(clippy::len_without_is_empty)] // There is always one.
    pub fn len(&self) -> usize {
        match &self.sequences {
            Sequences::Generate(requests) => requests.len(),
            Sequences::Embed(requests) => requests.len(),
        }
    }

    /// The tokens of each sequence's prompt.
    pub fn prompts(&self) -> impl Iterator<Item = &[u32]> {
        let (generate, embed): (&[Request], &[EmbeddingRequest]) = match &self.sequences {
            Sequences::Generate(requests) => (requests, &[]),
            Sequences::Embed(requests) => (&[], requests),
        };
        let generate = generate.iter().map(|request| &request.prompt_token_ids[..]);
        generate.chain(embed.iter().map(|request| &request.prompt_token_ids[..]))
    }

    /// The same work with another priority than [`Priority::Normal`].
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        match &mut self.sequences {
            Sequences::Generate(requests) => {
                requests.iter_mut().for_each(|request| request.priority = priority);
            }
            Sequences::Embed(requests) => {
                requests.iter_mut().for_each(|request| request.priority = priority);
            }
        }
        self
    }

    /// The same work, asked by `client`.
    #[must_use]
    pub fn with_client(mut self, client: Client) -> Self {
        match &mut self.sequences {
            Sequences::Generate(requests) => requests.iter_mut().for_each(|request| request.client = client),
            Sequences::Embed(requests) => requests.iter_mut().for_each(|request| request.client = client),
        }
        self
    }

    /// Queues all sequences, each with the sink that `sink` makes for its index, or none of them.
    ///
    /// # Errors
    /// The engine's refusal of one of them. Then nothing is sent to any sink.
    pub fn submit<S: EventSink + 'static>(
        self,
        engine: &EngineHandle,
        sink: impl FnMut(usize) -> S,
    ) -> Result<(), ApiError> {
        let sinks = (0..self.len()).map(sink);
        let queued = match self.sequences {
            Sequences::Generate(mut requests) => {
                if !self.is_length_given {
                    requests.iter_mut().for_each(|request| fit(request, engine.max_seq_tokens()));
                }
                engine.submit_together(requests.into_iter().zip(sinks))
            }
            Sequences::Embed(mut requests) => {
                if self.cuts {
                    let most = engine.max_seq_tokens();
                    requests.iter_mut().for_each(|request| request.prompt_token_ids.truncate(most));
                }
                engine.embed_together(requests.into_iter().zip(sinks))
            }
        };
        queued.map_err(|error| (self.rename)(ApiError::of_engine(error, self.form_field.as_deref())))
    }
}

/// Lowers what the request may generate to what there is room for, but not to nothing: then the prompt is too long, which the engine
/// says.
fn fit(request: &mut Request, max_seq_tokens: usize) {
    let room = max_seq_tokens.saturating_sub(request.prompt_token_ids.len()).max(1);
    request.params.max_tokens = request.params.max_tokens.map(|max_tokens| max_tokens.min(room));
}
