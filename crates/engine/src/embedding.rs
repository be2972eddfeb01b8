//! From the hidden states of a prompt's tokens to one vector of length 1.

use crate::request::Pooling;

/// Gathers the states of one prompt as they come, chunk by chunk.
///
/// A mean is summed one token after the other, in the order of positions and in f64: so the bits of the result depend on
/// neither the chunks nor what else was in their steps. It is kept as a sum, as only its direction counts.
#[derive(Debug)]
pub(crate) struct Pooler {
    pooling: Pooling,
    sum: Vec<f64>, // [hidden_size]
}

impl Pooler {
    pub fn new(pooling: Pooling, hidden_size: usize) -> Self {
        Self { pooling, sum: vec![0.0; hidden_size] }
    }

    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Forgets all states: the prompt is run from its beginning again.
    pub fn restart(&mut self) {
        self.sum.fill(0.0);
    }

    /// Takes the states of the next tokens, `[tokens, hidden_size]`; for [`Pooling::Last`] only that of the last.
    pub fn push(&mut self, hidden_states: &[f32]) {
        for state in hidden_states.chunks_exact(self.sum.len()) {
            self.sum.iter_mut().zip(state).for_each(|(sum, &value)| *sum += f64::from(value));
        }
    }

    /// The vector of length 1 in the direction of the sum; `None` if it has none.
    pub fn finish(&self) -> Option<Vec<f32>> {
        let length = self.sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let has_direction = length.is_finite() && length > 0.0;
        has_direction.then(|| self.sum.iter().map(|value| (value / length) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled(pooling: Pooling, chunks: &[&[f32]]) -> Option<Vec<f32>> {
        let mut pooler = Pooler::new(pooling, 2);
        chunks.iter().for_each(|chunk| pooler.push(chunk));
        pooler.finish()
    }

    #[test]
    fn the_result_has_length_one() {
        assert_eq!(pooled(Pooling::Last, &[&[3.0, -4.0]]), Some(vec![0.6, -0.8]));
        assert_eq!(pooled(Pooling::Mean, &[&[1.0, 0.0, 2.0, -4.0]]), Some(vec![0.6, -0.8]));
        assert_eq!(pooled(Pooling::Mean, &[&[1.0, 0.0], &[2.0, -4.0]]), Some(vec![0.6, -0.8]));
        assert_eq!(pooled(Pooling::Last, &[&[f32::MAX, 0.0]]), Some(vec![1.0, 0.0]));
    }

    #[test]
    fn what_has_no_direction_has_no_embedding() {
        for state in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            assert_eq!(pooled(Pooling::Last, &[&state]), None, "{state:?}");
        }
    }

    #[test]
    fn a_restart_forgets_what_came_before() {
        let mut pooler = Pooler::new(Pooling::Mean, 2);
        pooler.push(&[9.0, 9.0]);
        pooler.restart();
        pooler.push(&[0.0, 2.0]);
        assert_eq!(pooler.finish(), Some(vec![0.0, 1.0]));
    }
}
