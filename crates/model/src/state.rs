//! The activations of a step.

use crate::{Backend, BufferShape, ExpertsLayout, Layout, PartsLayout, Result};

/// The activations of a step, made once for the largest batch. `T` tokens, `R` rows of the LM head, `W` wanted rows. Of a rank, heads and
/// inner widths are its own but where rows are gathered.
pub struct RunState<B: Backend> {
    pub(crate) hidden: B::Buffer,     // [T, hidden_size], the residual stream
    pub(crate) normed: B::Buffer,     // [T, hidden_size]; in the end [W, hidden_size], the wanted rows
    pub(crate) qkv: ByWidth<B>,       // [T, q_dim + 2 * kv_dim]
    pub(crate) attended: ByWidth<B>,  // [T, q_dim]
    pub(crate) projected: B::Buffer, // [T, hidden_size]; in the end [W, hidden_size], the wanted rows before their norm
    pub(crate) gate_up: ByWidth<B>,  // [T, 2 * inner]
    pub(crate) activated: ByWidth<B>, // [T, inner]
    pub(crate) experts: Option<ExpertState<B>>,
    pub(crate) logits: B::Buffer,      // [R, vocab_size]
    pub(crate) next_tokens: B::Buffer, // [R, 1]
    pub(crate) scores: ByWidth<B>,     // [T, num_heads * max_seq_len], reference attention only
    pub(crate) context: Option<usize>, // max_seq_len of reference attention
    pub(crate) parts: Option<Parts<B>>,
}

/// A rank's own columns of rows that are gathered.
pub(crate) struct Parts<B: Backend> {
    pub(crate) attended: ByWidth<B>,         // [T, q_dim]
    pub(crate) projected: B::Buffer,         // [T, hidden_size]
    pub(crate) activated: ByWidth<B>,        // [T, inner]
    pub(crate) expert_activated: ByWidth<B>, // [P, inner]
    pub(crate) logits: B::Buffer,            // [R, vocab_size]
}

impl<B: Backend> Parts<B> {
    fn new(backend: &B, layout: &PartsLayout) -> Result<Self> {
        let alloc = |shape: BufferShape| backend.alloc(shape.rows, shape.cols, shape.role);
        Ok(Self {
            attended: ByWidth::new(backend, &layout.attended)?,
            projected: alloc(layout.projected)?,
            activated: ByWidth::new(backend, &layout.activated)?,
            expert_activated: ByWidth::new(backend, &layout.expert_activated)?,
            logits: alloc(layout.logits)?,
        })
    }
}

/// The activations of layers with experts. `P` pairs of a token and one of its experts.
pub(crate) struct ExpertState<B: Backend> {
    pub(crate) routes: B::Routes,
    pub(crate) router: B::Buffer,                      // [T, num_experts]
    pub(crate) gate_up: ByWidth<B>,                    // [P, 2 * inner]
    pub(crate) activated: ByWidth<B>,                  // [P, inner]
    pub(crate) outputs: B::Buffer,                     // [P, hidden_size]
    pub(crate) shared: Option<(B::Buffer, B::Buffer)>, // [T, hidden_size] and [T, 1]
}

impl<B: Backend> ExpertState<B> {
    fn new(backend: &B, layout: &ExpertsLayout) -> Result<Self> {
        let alloc = |shape: BufferShape| backend.alloc(shape.rows, shape.cols, shape.role);
        Ok(Self {
            routes: backend.alloc_routes(layout.routes)?,
            router: alloc(layout.router)?,
            gate_up: ByWidth::new(backend, &layout.gate_up)?,
            activated: ByWidth::new(backend, &layout.activated)?,
            outputs: alloc(layout.outputs)?,
            shared: match layout.shared {
                Some((values, gate)) => Some((alloc(values)?, alloc(gate)?)),
                None => None,
            },
        })
    }
}

/// A buffer for each width that rows of one kind have in the layers.
pub(crate) struct ByWidth<B: Backend>(Vec<(usize, B::Buffer)>);

impl<B: Backend> ByWidth<B> {
    fn new(backend: &B, shapes: &[BufferShape]) -> Result<Self> {
        let buffer =
            |shape: &BufferShape| Ok((shape.cols, backend.alloc(shape.rows, shape.cols, shape.role)?));
        shapes.iter().map(buffer).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn get(&mut self, cols: usize) -> &mut B::Buffer {
        let found = self.0.iter_mut().find(|(width, _)| *width == cols);
        &mut found.expect("the layout has a buffer for every width").1
    }
}

impl<B: Backend> RunState<B> {
    /// Makes the buffers of a layout.
    ///
    /// # Errors
    /// When the device cannot hold them.
    pub fn new(backend: &B, layout: &Layout) -> Result<Self> {
        let alloc = |shape: BufferShape| backend.alloc(shape.rows, shape.cols, shape.role);
        let by_width = |shapes: &[BufferShape]| ByWidth::new(backend, shapes);
        Ok(Self {
            hidden: alloc(layout.hidden)?,
            normed: alloc(layout.normed)?,
            qkv: by_width(&layout.qkv)?,
            attended: by_width(&layout.attended)?,
            projected: alloc(layout.projected)?,
            gate_up: by_width(&layout.gate_up)?,
            activated: by_width(&layout.activated)?,
            experts: layout.experts.as_ref().map(|layout| ExpertState::new(backend, layout)).transpose()?,
            logits: alloc(layout.logits)?,
            next_tokens: alloc(layout.next_tokens)?,
            scores: by_width(&layout.scores)?,
            context: layout.reference_context,
            parts: layout.parts.as_ref().map(|layout| Parts::new(backend, layout)).transpose()?,
        })
    }

    /// `[A + L, vocab_size]` logits of the last [`Decoder::forward`](crate::Decoder::forward).
    pub fn logits(&self) -> &B::Buffer {
        &self.logits
    }

    /// `[A, 1]` tokens that were chosen from the first logits.
    pub fn next_tokens(&self) -> &B::Buffer {
        &self.next_tokens
    }

    /// `[W, hidden_size]` hidden states of the last [`Decoder::forward`](crate::Decoder::forward), normed: those that the logits were made of,
    /// then those that were wanted themselves.
    pub fn hidden_states(&self) -> &B::Buffer {
        &self.normed
    }
}
