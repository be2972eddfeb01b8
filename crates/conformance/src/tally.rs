//! What the comparisons of a check come to.

/// What a check comes to.
#[derive(Debug)]
pub(crate) struct Tally {
    pub cases: usize,
    /// The largest error.
    pub error: f64,
    /// What it may be; 0 where bits are compared.
    pub limit: f64,
    /// Of all bits that were compared with anything.
    pub digest: u64,
    /// The first case that failed.
    pub failure: Option<String>,
}

impl Tally {
    pub fn within(limit: f64) -> Self {
        // FNV-1a's offset.
        Self { cases: 0, error: 0.0, limit, digest: 0xcbf2_9ce4_8422_2325, failure: None }
    }

    pub fn fail(&mut self, failure: String) {
        self.failure.get_or_insert(failure);
    }

    /// Compares values with what is right, all together: the error is that of the vector, relative to its length.
    pub fn near(&mut self, case: impl Fn() -> String, got: &[f32], want: &[f64]) {
        self.record(&case, got, want.len());
        let error: f64 = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).powi(2)).sum();
        let norm: f64 = want.iter().map(|want| want.powi(2)).sum();
        self.take_error(case, (error / norm).sqrt());
    }

    /// Compares each value with what is right: the error is the largest, as a part of `scale(i)`.
    pub fn each(
        &mut self,
        case: impl Fn() -> String,
        got: &[f32],
        want: &[f64],
        scale: impl Fn(usize) -> f64,
    ) {
        self.record(&case, got, want.len());
        let error_of = |(i, (&got, &want)): (usize, (&f32, &f64))| match f64::from(got) == want {
            true => 0.0,
            false => (f64::from(got) - want).abs() / scale(i),
        };
        // An error that is no number is the largest.
        let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
        let error = got.iter().zip(want).enumerate().map(error_of).fold(0.0, larger);
        self.take_error(case, error);
    }

    /// Compares whole numbers.
    pub fn equal(&mut self, case: impl Fn() -> String, got: &[u32], want: &[u32]) {
        self.cases += 1;
        got.iter().for_each(|&word| self.digest_word(word));
        if got != want {
            self.fail(format!("{}: {got:?}, expected {want:?}", case()));
        }
    }

    /// Compares bits.
    pub fn same(&mut self, case: impl Fn() -> String, got: &[f32], want: &[f32]) {
        self.record(&case, got, want.len());
        let differs = |(got, want): (&f32, &f32)| got.to_bits() != want.to_bits();
        if let Some(i) = got.iter().zip(want).position(differs) {
            self.fail(format!("{}: value {i} is {:?}, expected {:?} bit for bit", case(), got[i], want[i]));
        }
    }

    fn take_error(&mut self, case: impl Fn() -> String, error: f64) {
        if error.is_nan() || error > self.error {
            self.error = error;
        }
        // An error that is no number is not within the limit either.
        if error.is_nan() || error > self.limit {
            self.fail(format!("{}: error {error:.2e}, expected at most {:.0e}", case(), self.limit));
        }
    }

    fn record(&mut self, case: impl Fn() -> String, got: &[f32], want_len: usize) {
        assert_eq!(got.len(), want_len, "{}: values", case());
        self.cases += 1;
        got.iter().for_each(|value| self.digest_word(value.to_bits()));
    }

    fn digest_word(&mut self, word: u32) {
        self.digest = (self.digest ^ u64::from(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> String {
        "case".to_owned()
    }

    #[test]
    fn errors_are_of_vectors_or_of_elements() {
        let mut tally = Tally::within(0.1);
        tally.near(case, &[3.0, 4.3], &[3.0, 4.0]);
        assert!((tally.error - 0.06).abs() < 1e-6 && tally.failure.is_none(), "{tally:?}");
        tally.each(case, &[3.0, 4.3], &[3.0, 4.0], |_| 4.0);
        assert!((tally.error - 0.075).abs() < 1e-6 && tally.failure.is_none(), "{tally:?}");
        tally.each(case, &[0.0], &[0.0], |_| 0.0);
        tally.each(case, &[3.0, 4.3], &[3.0, 4.0], |i| [1.0, 0.5][i]);
        assert!(tally.failure.as_deref().is_some_and(|failure| failure.contains("6.00e-1")), "{tally:?}");
        assert_eq!(tally.cases, 4);
    }

    #[test]
    fn what_is_no_number_fails() {
        let found = |compare: &dyn Fn(&mut Tally)| {
            let mut tally = Tally::within(1e9);
            compare(&mut tally);
            tally.failure.is_some()
        };
        assert!(found(&|tally| tally.near(case, &[f32::NAN, 1.0], &[1.0, 1.0])));
        assert!(found(&|tally| tally.each(case, &[1.0, f32::NAN, 1.0], &[1.0; 3], |_| 1.0)));
        assert!(found(&|tally| tally.near(case, &[f32::INFINITY], &[1.0])));
    }

    #[test]
    fn bits_are_told_apart() {
        let mut tally = Tally::within(0.0);
        tally.same(case, &[f32::NAN, 1.0], &[f32::NAN, 1.0]);
        assert!(tally.failure.is_none());
        tally.same(case, &[0.0], &[-0.0]);
        assert!(tally.failure.is_some());
        let digest = |values: &[f32]| {
            let mut tally = Tally::within(0.0);
            tally.same(case, values, values);
            tally.digest
        };
        assert_ne!(digest(&[0.0]), digest(&[-0.0]));
        assert_ne!(digest(&[1.0, 2.0]), digest(&[2.0, 1.0]));
    }
}
