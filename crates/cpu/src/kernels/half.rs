//! f16 to f32 in arithmetic that the compiler can vectorise.

/// f16 to f32 without branches or tables. Exact for every value, subnormals included.
#[inline(always)]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23); // the difference of the exponents' biases
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * TWO_TO_112).to_bits();
    let magnitude = if magnitude >= 0x1f << 23 { magnitude | 0xff << 23 } else { finite };
    f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    #[test]
    fn f16_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (super::f16_to_f32(bits), gguf::half::f16_to_f32(bits));
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#06x}");
        }
    }
}
