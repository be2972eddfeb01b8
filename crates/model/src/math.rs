//! `exp` and `tanh` in f32 arithmetic that the compiler can vectorise: the same bits on every platform, which those of a C
//! library are not.

/// `e^x`, within 2 units in the last place of the result; 0 below -87.3, infinite above 88.7; NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` by a polynomial, `2^n` by the exponent bits (in two factors, so that
/// the largest results do not overflow on the way).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    const LN2_HIGH: f32 = 0.693_359_4; // few bits, so that n * LN2_HIGH is exact
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.8);
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor's coefficients with the last two bent to the interval (minimax by Cephes).
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let e = (p * r * r + r) + 1.0;
    let n = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let y = e * power(half) * power(n - half);
    if x < -87.3 { 0.0 } else { y }
}

/// The hyperbolic tangent, within 4 units in the last place of the result; NaN stays NaN.
///
/// Small arguments by a polynomial, since `1 - 2 / (e^2x + 1)` would lose their digits.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let large = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    // Taylor's coefficients bent to the interval (minimax by Cephes).
    let z = x * x;
    let mut p = -5.704_989e-3;
    p = p * z + 2.063_909e-2;
    p = p * z + -5.373_971_6e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z + -3.333_328e-1;
    let small = p * z * x + x;
    if size < 0.625 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::{exp, tanh};

    #[test]
    fn tanh_is_within_four_ulps_of_f64() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 1e-4;
            let (got, want) = (f64::from(tanh(x)), f64::from(x).tanh());
            let next = f32::from_bits((want as f32).abs().to_bits() + 1);
            let ulp = f64::from(next) - f64::from(want as f32).abs();
            assert!((got - want).abs() <= 4.0 * ulp, "tanh({x}) = {got}, expected {want}");
        }
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((tanh(1e-30), tanh(-300.0)), (1e-30, -1.0));
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn exp_is_within_two_ulps_of_f64() {
        for i in -873_000..=887_000 {
            let x = i as f32 * 1e-4;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            let ulp = f64::from(f32::from_bits((want as f32).to_bits() + 1)) - f64::from(want as f32);
            assert!((got - want).abs() <= 2.0 * ulp, "exp({x}) = {got}, expected {want}");
        }
    }

    #[test]
    fn exp_at_its_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(200.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
