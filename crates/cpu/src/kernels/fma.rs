//! `a * b + c`, rounded once: an instruction where there is one, else the same bits from f64 arithmetic.

/// How a table's plain code adds products. Both ways give the same bits.
pub(super) trait MulAdd {
    /// `a * b + c`, rounded once.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// By an instruction; for functions whose target has it, since otherwise it is a call for each number.
pub(super) enum Instruction {}

/// By f64 arithmetic that the compiler can vectorise.
pub(super) enum Emulated {}

/// What the portable kernels use.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_feature = "fma"))]
pub(super) type Baseline = Instruction;
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64", target_feature = "fma")))]
pub(super) type Baseline = Emulated;

impl MulAdd for Instruction {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl MulAdd for Emulated {
    /// The product is exact in f64. Its sum with `c` is rounded to odd: of the two numbers of f64 around a sum that is none,
    /// the one whose last bit is set. So the sum lies on the same side of every tie of f32 as the exact one, and rounding it to
    /// f32 gives what rounding the exact one does (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums",
    /// IEEE Transactions on Computers 57(4), 2008): 53 bits are more than two beyond 24.
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
        let sum = product + c;
        // What rounding the sum left off, exactly (Knuth's TwoSum).
        let of_c = sum - product;
        let error = (product - (sum - of_c)) + (c - of_c);
        let (bits, error_bits) = (sum.to_bits(), error.to_bits());
        // Infinite sums have an error that is no number, and stay.
        let is_inexact = u64::from(error.abs() > 0.0);
        let step = 1u64.wrapping_sub(((bits ^ error_bits) >> 63) << 1);
        let odd = bits.wrapping_add(step & (is_inexact & !bits & 1).wrapping_neg());
        f64::from_bits(odd) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::{Emulated, MulAdd};

    fn check(a: f32, b: f32, c: f32) {
        // The standard library's is the C library's, which is right.
        let (got, want) = (Emulated::mul_add(a, b, c), a.mul_add(b, c));
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{a:e} * {b:e} + {c:e} = {got:e}, expected {want:e}"
        );
    }

    #[test]
    fn the_emulation_gives_the_bits_of_the_instruction() {
        let ends = [
            0.0,
            1.0,
            f32::MIN_POSITIVE,
            1e-45,
            3e-39,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
            1.0 + f32::EPSILON,
        ];
        let ends: Vec<f32> = ends.into_iter().flat_map(|x| [x, -x]).collect();
        for &a in &ends {
            for &b in &ends {
                ends.iter().for_each(|&c| check(a, b, c));
            }
        }
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for _ in 0..1_000_000 {
            let (a, b, c) = (random(), random(), random());
            // Any numbers; then numbers of like size, few bits and sums close to a tie.
            check(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
            let near =
                |bits: u32, size: u32, mask: u32| f32::from_bits(bits & mask & 0x807f_ffff | size << 23);
            check(near(a, 127, !0), near(b, 127, !0), near(c, 127 + c % 64 - 32, !0));
            check(near(a, 127, 0xffff_f000), near(b, 127, 0xffff_f000), near(c, 127 + c % 64 - 32, !0));
            check(near(a, 70, !0), near(b, 60, !0), near(c, c % 8, !0));
        }
    }

    /// A product halfway between two numbers of f32, and a little more or less: rounding to f64 first would lose it.
    #[test]
    fn a_sum_beside_a_tie_is_not_rounded_twice() {
        let a = 1.0 + 2f32.powi(-12);
        for c in [1e-30, -1e-30, 2f32.powi(-60), -(2f32.powi(-60)), 0.0] {
            check(a, a, c);
            check(a, -a, c);
        }
        let twice = (f64::from(a) * f64::from(a) + 1e-30) as f32;
        assert_ne!(Emulated::mul_add(a, a, 1e-30), twice);
    }
}
