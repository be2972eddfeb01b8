//! What sampling remembers of a sequence: its generator, and what its rules count.

use std::collections::HashMap;
use std::sync::Arc;

use model::Draw;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tokenizer::Tokenizer;

use crate::dry::DryState;
use crate::sampling_params::SamplingParams;

/// What sampling remembers of a sequence. It stays with the sequence when its pages are taken away.
#[derive(Debug, Clone)]
pub(crate) struct SamplingState {
    pub rng: Xoshiro256PlusPlus,
    /// How often each token that occurs was generated; 0 for one that is in the prompt only. Kept if penalties ask for it.
    pub num_generated: Option<HashMap<u32, u32>>,
    pub dry: Option<DryState>,
    /// The surprise in bits up to which Mirostat keeps tokens.
    pub mirostat_limit: f64,
}

impl SamplingState {
    /// For a prompt; the text of its tokens matters to some rules, if there is a tokenizer.
    pub fn new(
        params: &SamplingParams,
        prompt_token_ids: &[u32],
        tokenizer: Option<&Arc<Tokenizer>>,
    ) -> Self {
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(params.seed),
            num_generated: params
                .has_penalties()
                .then(|| prompt_token_ids.iter().map(|&token_id| (token_id, 0)).collect()),
            dry: (params.dry.multiplier > 0.0)
                .then(|| DryState::new(&params.dry, prompt_token_ids, tokenizer)),
            // As its authors begin.
            mirostat_limit: params.mirostat.map_or(0.0, |mirostat| 2.0 * f64::from(mirostat.tau)),
        }
    }

    /// Takes note of a generated token.
    pub fn count(&mut self, token_id: u32) {
        if let Some(num_generated) = &mut self.num_generated {
            *num_generated.entry(token_id).or_default() += 1;
        }
        if let Some(dry) = &mut self.dry {
            dry.push(token_id);
        }
    }

    /// Uniform in `[0, 1)`, in units of 2^-64.
    pub fn draw_point(&mut self) -> u64 {
        point(&mut self.rng)
    }

    /// The same as a float.
    pub fn draw(&mut self) -> f64 {
        (self.draw_point() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The draw that comes next, without taking it, if [`Sampler::sample`](crate::sampler::Sampler::sample) would do no more than that.
    pub fn next_draw(&self, params: &SamplingParams) -> Option<Draw> {
        let SamplingParams { temperature, top_p, min_p, .. } = *params;
        // No vocabulary has as many tokens.
        let top_k = u32::try_from(params.top_k).unwrap_or(0);
        params.draws_plainly().then(|| {
            let point = point(&mut self.rng.clone());
            Draw { temperature, top_k, top_p, min_p, point }
        })
    }

    /// Takes the draw that [`next_draw`](Self::next_draw) showed.
    pub fn take_draw(&mut self) {
        self.draw_point();
    }
}

/// The upper 53 bits of one draw, in units of 2^-64.
fn point(rng: &mut Xoshiro256PlusPlus) -> u64 {
    rng.next_u64() >> 11 << 11
}
