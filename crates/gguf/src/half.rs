//! IEEE 754 binary16 and bfloat16 to and from `f32`.
//!
//! Four short functions instead of a dependency. The binary16 pair agrees bit for bit with x86's F16C on
//! every input, NaNs included: a signalling NaN comes out quiet, with its payload's high bits kept. That is
//! what lets a SIMD kernel be compared with the scalar oracle exactly.

/// Quiet bit of an `f32` NaN.
const F32_QUIET: u32 = 0x0040_0000;

/// Widens a binary16 (1 sign, 5 exponent, 10 mantissa bits) to `f32`. Exact.
#[inline]
pub const fn f16_to_f32(half: u16) -> f32 {
    let sign = ((half & 0x8000) as u32) << 16;
    let exponent = ((half >> 10) & 0x1f) as u32;
    let mantissa = (half & 0x3ff) as u32;
    let magnitude = match (exponent, mantissa) {
        (0x1f, 0) => 0x7f80_0000,
        (0x1f, _) => 0x7f80_0000 | F32_QUIET | (mantissa << 13),
        // Zero and the subnormals are multiples of 2^-24, which f32 holds as normal numbers.
        (0, _) => (mantissa as f32 * (1.0 / 16_777_216.0)).to_bits(),
        // The exponent's bias moves from 15 to 127.
        _ => ((exponent + 112) << 23) | (mantissa << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// Narrows an `f32` to binary16, rounding to nearest, ties to even. Values from 65520 on become infinite.
#[inline]
pub const fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | ((magnitude >> 13) & 0x3ff) as u16;
    }
    // 65520 is halfway between the largest binary16, 65504, and 65536; the tie goes to infinity.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    let exponent = magnitude >> 23;
    if exponent >= 113 {
        // Normal: drop 13 mantissa bits; a carry out of the mantissa correctly increments the exponent.
        return sign | round_shift(magnitude - (112 << 23), 13) as u16;
    }
    // Subnormal or zero: the significand becomes a multiple of 2^-24. Below 2^-25 everything rounds to zero.
    let shift = 126 - exponent;
    if shift > 24 {
        return sign;
    }
    sign | round_shift((magnitude & 0x007f_ffff) | 0x0080_0000, shift) as u16
}

/// Widens a bfloat16 (the upper half of an `f32`). Exact.
#[inline]
pub const fn bf16_to_f32(half: u16) -> f32 {
    let bits = (half as u32) << 16;
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    f32::from_bits(if is_nan { bits | F32_QUIET } else { bits })
}

/// Narrows an `f32` to bfloat16, rounding to nearest, ties to even.
#[inline]
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return ((bits | F32_QUIET) >> 16) as u16;
    }
    // The carry runs into the exponent and, for the largest values, to infinity, as it should.
    round_shift(bits, 16) as u16
}

/// `bits / 2^shift`, rounded to nearest, ties to even; `1 <= shift <= 24`. A sum that wraps cannot occur: the
/// callers' largest input is an infinity's bit pattern.
const fn round_shift(bits: u32, shift: u32) -> u32 {
    let quotient = bits >> shift;
    let just_below_half = (1 << (shift - 1)) - 1;
    (bits + just_below_half + (quotient & 1)) >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a binary16 by the standard's definition, in f64.
    fn f16_by_definition(half: u16) -> f64 {
        let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
        let mantissa = f64::from(half & 0x3ff);
        match (half >> 10) & 0x1f {
            0 => sign * mantissa * 2f64.powi(-24),
            0x1f if mantissa == 0.0 => sign * f64::INFINITY,
            0x1f => f64::NAN,
            exponent => sign * (1024.0 + mantissa) * 2f64.powi(i32::from(exponent) - 25),
        }
    }

    #[test]
    fn every_f16_widens_to_its_definition_and_back_to_itself() {
        for half in 0..=u16::MAX {
            let wide = f16_to_f32(half);
            let expected = f16_by_definition(half);
            if expected.is_nan() {
                assert!(wide.is_nan(), "{half:#06x}");
                assert_eq!(f32_to_f16(wide), half | 0x0200, "{half:#06x}: the NaN comes back quiet");
            } else {
                assert_eq!(f64::from(wide).to_bits(), expected.to_bits(), "{half:#06x}");
                assert_eq!(f32_to_f16(wide), half, "{half:#06x}");
            }
        }
    }

    #[test]
    fn every_bf16_widens_to_its_upper_half_and_back_to_itself() {
        for half in 0..=u16::MAX {
            let wide = bf16_to_f32(half);
            let is_nan = half & 0x7fff > 0x7f80;
            let quiet = if is_nan { half | 0x0040 } else { half };
            assert_eq!(wide.to_bits(), u32::from(quiet) << 16, "{half:#06x}");
            assert_eq!(f32_to_bf16(wide), quiet, "{half:#06x}");
        }
    }

    /// Between every two neighbours: below, at and above the midpoint. The midpoint goes to the even one.
    fn check_rounding(narrow: fn(f32) -> u16, widen: fn(u16) -> f32, largest: u16) {
        for low in 0..largest {
            let high = low + 1;
            let middle = ((f64::from(widen(low)) + f64::from(widen(high))) / 2.0) as f32;
            let even = if low % 2 == 0 { low } else { high };
            for (value, expected) in [(middle.next_down(), low), (middle, even), (middle.next_up(), high)] {
                assert_eq!(narrow(value), expected, "{value:e} near {low:#06x}");
                assert_eq!(narrow(-value), expected | 0x8000, "{:e} near {low:#06x}", -value);
            }
        }
    }

    #[test]
    fn f32_to_f16_rounds_to_nearest_even() {
        check_rounding(f32_to_f16, f16_to_f32, 0x7bff);
        for (value, expected) in [
            (65519.996, 0x7bff),
            (65520.0, 0x7c00),
            (f32::MAX, 0x7c00),
            (f32::INFINITY, 0x7c00),
            (f32::NEG_INFINITY, 0xfc00),
            (f32::MIN_POSITIVE, 0),
            (f32::from_bits(1), 0),
            (-0.0, 0x8000),
        ] {
            assert_eq!(f32_to_f16(value), expected, "{value:e}");
        }
    }

    #[test]
    fn f32_to_bf16_rounds_to_nearest_even() {
        check_rounding(f32_to_bf16, bf16_to_f32, 0x7f7f);
        assert_eq!(f32_to_bf16(f32::MAX), 0x7f80);
        assert_eq!(f32_to_bf16(f32::NEG_INFINITY), 0xff80);
    }
}
