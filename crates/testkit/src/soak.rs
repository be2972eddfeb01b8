//! How often a test of random cases repeats: some in a quick check, many in a long one.

/// `count` times the whole number in the environment's `RUSTORCH_SOAK`, which is 1 without one.
///
/// # Panics
/// When `RUSTORCH_SOAK` is not a whole number from 1.
pub fn soak(count: u32) -> u32 {
    let factor = match std::env::var("RUSTORCH_SOAK") {
        Err(_) => 1,
        Ok(text) => text.parse().ok().filter(|&factor| factor > 0).unwrap_or_else(|| {
            panic!("RUSTORCH_SOAK: expected a whole number from 1, found {text:?}");
        }),
    };
    count.saturating_mul(factor)
}
