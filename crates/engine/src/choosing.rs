//! Chooses the tokens of a step on several threads.
//!
//! A row of a large vocabulary takes a millisecond to sample, and a step on a GPU has hundreds of rows. What is chosen depends on
//! the row and on its sequence alone, so that threads change no result. Text, events and all else that follow from a token stay
//! in order on the engine's own thread.

use std::num::NonZero;
use std::thread;

use model::Output;

use crate::sampler::Sampler;
use crate::sequence::Sequence;

/// Logits that are worth a thread: a few times what it costs to start one.
const LOGITS_PER_THREAD: usize = 1 << 16;

/// Scratch for each thread.
#[derive(Debug)]
pub(crate) struct Choosing {
    samplers: Vec<Sampler>,
    most_threads: usize,
    logits_per_thread: usize,
}

impl Default for Choosing {
    fn default() -> Self {
        let most_threads = thread::available_parallelism().map_or(1, NonZero::get);
        Self::new(most_threads, LOGITS_PER_THREAD)
    }
}

impl Choosing {
    /// On at most so many threads, of at least so many logits each.
    pub fn new(most_threads: usize, logits_per_thread: usize) -> Self {
        Self { samplers: Vec::new(), most_threads, logits_per_thread }
    }

    /// Chooses the next tokens of the sequences that are given rows of logits, if they are enough for several threads. What
    /// is not chosen here the sequences choose when they take in their rows.
    pub fn choose(&mut self, mut rows: Vec<(&mut Sequence, Output<'_>)>) {
        rows.retain(|(seq, output)| seq.can_choose_ahead(*output));
        let num_logits: usize = rows.iter().map(|(_, output)| num_logits(*output)).sum();
        let num_threads = self.most_threads.min(num_logits / self.logits_per_thread).min(rows.len());
        if num_threads < 2 {
            return;
        }
        self.samplers.resize_with(self.samplers.len().max(num_threads), Sampler::default);
        let rows_per_thread = rows.len().div_ceil(num_threads);
        thread::scope(|scope| {
            let mut parts = rows.chunks_mut(rows_per_thread).zip(&mut self.samplers);
            let own = parts.next();
            for (rows, sampler) in parts {
                // Without another thread, these rows wait for their sequences.
                let work = move || choose_all(rows, sampler);
                let _ = thread::Builder::new().name("sampling".to_owned()).spawn_scoped(scope, work);
            }
            if let Some((rows, sampler)) = own {
                choose_all(rows, sampler);
            }
        });
    }
}

fn choose_all(rows: &mut [(&mut Sequence, Output<'_>)], sampler: &mut Sampler) {
    for (seq, output) in rows {
        seq.choose_ahead(*output, sampler);
    }
}

fn num_logits(output: Output<'_>) -> usize {
    match output {
        Output::Logits(logits) => logits.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use model::RunnerSpec;

    use super::*;
    use crate::request::Request;
    use crate::sampling_params::SamplingParams;
    use crate::testing::{sequence, spec};

    const VOCAB_SIZE: usize = 50;

    fn params(seed: u64) -> SamplingParams {
        let logprobs = seed.is_multiple_of(3).then_some(2);
        SamplingParams { temperature: 1.0, seed, logprobs, max_tokens: Some(6), ..SamplingParams::default() }
    }

    /// Six tokens of each of 20 sequences, chosen by so many threads, and how many of them were chosen ahead.
    fn tokens(most_threads: usize) -> (Vec<Vec<u32>>, usize) {
        let spec = RunnerSpec { vocab_size: VOCAB_SIZE, ..spec() };
        let mut seqs: Vec<_> = (0..20)
            .map(|seed| {
                let prompt_token_ids = vec![1, 2];
                let request = Request { prompt_token_ids, params: params(seed), ..Request::default() };
                sequence(spec, None, request).expect("a request that fits")
            })
            .collect();
        let mut choosing = Choosing::new(most_threads, 100);
        let (mut sampler, mut num_ahead) = (Sampler::default(), 0);
        for step in 0..6 {
            let logits: Vec<Vec<f32>> = (0..seqs.len())
                .map(|seq| (0..VOCAB_SIZE).map(|id| ((id * 7 + seq * 3 + step) % 11) as f32 / 3.0).collect())
                .collect();
            let rows = seqs.iter_mut().zip(&logits);
            choosing.choose(rows.map(|((seq, _), logits)| (seq, Output::Logits(logits))).collect());
            for ((seq, _), logits) in seqs.iter_mut().zip(&logits) {
                num_ahead += usize::from(seq.has_chosen());
                seq.generate(Output::Logits(logits), &mut sampler);
            }
        }
        (seqs.into_iter().map(|(seq, _)| seq.token_ids).collect(), num_ahead)
    }

    #[test]
    fn threads_change_no_token() {
        let (alone, none_ahead) = tokens(1);
        assert_eq!(none_ahead, 0);
        for threads in [2, 3, 7, 40] {
            let (together, num_ahead) = tokens(threads);
            assert_eq!(together, alone, "{threads} threads");
            assert_eq!(num_ahead, 120, "{threads} threads");
        }
    }
}
