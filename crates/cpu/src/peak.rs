//! The machine's peak rates, which a benchmark compares with.
//!
//! Each loop is the least that any kernel of the instruction set must do, and nothing else: read memory and fold it, or
//! multiply-add values that stay in registers. All threads of the pool work, as in a step. A rate is the best of several
//! passes, since whatever disturbs one can only make it slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use model::{Error, Peaks, Result};

use crate::aligned::AlignedBytes;
use crate::disjoint::Disjoint;
use crate::kernels::Isa;
use crate::pool::ThreadPool;

/// One instruction set's loops. Calling one requires that the machine has the instructions; [`PeakLoops::of`] alone hands
/// them out and checks that it does.
struct PeakLoops {
    /// Reads the bytes and folds them into one number.
    read: unsafe fn(&[u8]) -> u64,
    /// Multiplies and adds bytes for so many rounds; the result only keeps the compiler from dropping the work.
    int8: unsafe fn(usize) -> i32,
    /// Multiply-adds of a round of `int8`.
    int8_macs: usize,
    /// As `int8`, of f32 values.
    float: unsafe fn(usize) -> f32,
    /// Multiply-adds of a round of `float`.
    float_macs: usize,
}

/// Far more than the caches that one socket's cores share, on all but a few machines.
const READ_BYTES: usize = 512 << 20;
/// What a thread reads at a time.
const CHUNK: usize = 1 << 20;
/// Multiply-adds of one task: some tens of microseconds of a fast core.
const TASK_MACS: usize = 1 << 22;
/// Tasks of a pass for each thread.
const TASKS_PER_THREAD: usize = 16;
/// How long passes of one kind are repeated.
const BUDGET: Duration = Duration::from_millis(150);

/// Measures memory and arithmetic with all threads of the pool.
pub(crate) fn measure(pool: &ThreadPool, isa: Isa) -> Result<Peaks> {
    let loops = PeakLoops::of(isa);
    let num_tasks = TASKS_PER_THREAD * pool.num_threads();
    let macs_per_s = |macs_per_round: usize, run: &(dyn Fn(usize) + Sync)| {
        let rounds = TASK_MACS / macs_per_round;
        best_rate(rounds * macs_per_round * num_tasks, || pool.run(num_tasks, |_| run(rounds)))
    };
    Ok(Peaks {
        read_bytes_per_s: read_bytes_per_s(pool, &loops)?,
        quantized_macs_per_s: macs_per_s(loops.int8_macs, &|rounds| {
            // SAFETY: the machine has the instructions: `PeakLoops::of` checked.
            black_box(unsafe { (loops.int8)(rounds) });
        }),
        float_macs_per_s: macs_per_s(loops.float_macs, &|rounds| {
            // SAFETY: as above.
            black_box(unsafe { (loops.float)(rounds) });
        }),
    })
}

fn read_bytes_per_s(pool: &ThreadPool, loops: &PeakLoops) -> Result<f64> {
    let needed = READ_BYTES as u64;
    let mut memory = AlignedBytes::zeroed(READ_BYTES)
        .ok_or_else(|| Error::OutOfMemory { what: "measuring memory".to_owned(), needed })?;
    let num_chunks = READ_BYTES / CHUNK;
    let out = Disjoint::new(memory.as_mut_slice());
    pool.run(num_chunks, |chunk| {
        // SAFETY: each task takes the bytes of its own chunk, and a job runs each task once.
        unsafe { out.slice(chunk * CHUNK, CHUNK) }.fill(chunk as u8 | 1);
    });
    let memory = memory.as_slice();
    Ok(best_rate(READ_BYTES, || {
        pool.run(num_chunks, |chunk| {
            // SAFETY: as in `measure`.
            black_box(unsafe { (loops.read)(&memory[chunk * CHUNK..][..CHUNK]) });
        });
    }))
}

/// `work` over the time of the fastest pass.
fn best_rate(work: usize, pass: impl Fn()) -> f64 {
    let started = Instant::now();
    let mut best = Duration::MAX;
    let mut passes = 0;
    while passes < 3 || started.elapsed() < BUDGET {
        let pass_started = Instant::now();
        pass();
        best = best.min(pass_started.elapsed());
        passes += 1;
    }
    work as f64 / best.as_secs_f64()
}

impl PeakLoops {
    /// The loops of an instruction set.
    ///
    /// # Panics
    /// When the machine lacks it.
    fn of(isa: Isa) -> Self {
        assert!(isa.is_available(), "{isa}: this machine lacks it");
        match isa {
            Isa::Portable => portable::LOOPS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::LOOPS,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => PeakLoops { int8: avx2::int8_vnni, int8_macs: avx2::SUMS * 32, ..avx2::LOOPS },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::LOOPS,
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 => {
                unreachable!("a backend's instruction set is one of its machine's")
            }
        }
    }
}

/// Plain code has no instruction to count by: sums of products of small arrays, which stay in the first-level cache.
mod portable {
    use std::hint::black_box;

    use super::PeakLoops;

    pub(super) const LOOPS: PeakLoops =
        PeakLoops { read, int8, int8_macs: COLS, float, float_macs: TOKENS * ROWS * COLS };

    const COLS: usize = 1024;
    /// Rows and tokens whose sums plain code can keep in registers.
    const ROWS: usize = 16;
    const TOKENS: usize = 2;

    fn read(bytes: &[u8]) -> u64 {
        let mut sums = [0u64; 8];
        for line in bytes.as_chunks::<64>().0 {
            for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
                *sum ^= u64::from_le_bytes(*word);
            }
        }
        sums.into_iter().fold(0, |all, sum| all ^ sum)
    }

    /// Of bytes widened already, as plain code must before it multiplies them.
    fn int8(rounds: usize) -> i32 {
        let (weights, x) = ([3i16; COLS], [2i16; COLS]);
        let mut sum = 0i32;
        for _ in 0..rounds {
            let products = black_box(&weights).iter().zip(black_box(&x));
            let round = products.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum::<i32>();
            sum = sum.wrapping_add(round);
        }
        sum
    }

    fn float(rounds: usize) -> f32 {
        let (weights, x) = ([[1e-3f32; ROWS]; COLS], [[0.5f32; TOKENS]; COLS]);
        let mut total = 0.0;
        for _ in 0..rounds {
            let mut sums = [[0f32; ROWS]; TOKENS];
            for (column, x) in black_box(&weights).iter().zip(black_box(&x)) {
                for t in 0..TOKENS {
                    for r in 0..ROWS {
                        sums[t][r] += column[r] * x[t];
                    }
                }
            }
            total += sums.as_flattened().iter().sum::<f32>();
        }
        total
    }
}

/// A value that the compiler knows nothing of, at no cost: otherwise it would compute once what a loop repeats.
#[cfg(target_arch = "x86_64")]
macro_rules! unknown {
    ($class:ident, $value:expr) => {{
        let mut value = $value;
        // SAFETY: no instruction, no memory, no stack; the register's value stays as it is.
        unsafe {
            std::arch::asm!("/* {0} */", inout($class) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::PeakLoops;

    pub(super) const LOOPS: PeakLoops =
        PeakLoops { read, int8, int8_macs: TOKENS * GROUPS * 32, float, float_macs: SUMS * 8 };

    /// Products of so many groups are added in 16 bits before they widen, as the kernels do where weights are narrow.
    const GROUPS: usize = 4;
    const TOKENS: usize = 4;
    /// Enough to hide a multiply-add's latency, and few enough for sixteen registers.
    pub(super) const SUMS: usize = 12;

    #[target_feature(enable = "avx2")]
    fn read(bytes: &[u8]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for lines in bytes.as_chunks::<256>().0 {
            for (sum, line) in sums.iter_mut().zip(lines.as_chunks::<32>().0) {
                // SAFETY: the reference is to 32 bytes; the load needs no alignment.
                let line = unsafe { _mm256_loadu_si256(line.as_ptr().cast()) };
                *sum = _mm256_xor_si256(*sum, line);
            }
        }
        let sum = sums.into_iter().fold(_mm256_setzero_si256(), |all, sum| _mm256_xor_si256(all, sum));
        let halves = _mm_xor_si128(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        (_mm_cvtsi128_si64(halves) ^ _mm_extract_epi64::<1>(halves)).cast_unsigned()
    }

    #[target_feature(enable = "avx2")]
    fn int8(rounds: usize) -> i32 {
        let ones = _mm256_set1_epi16(1);
        let mut weights = [_mm256_set1_epi8(3); GROUPS];
        let x = [_mm256_set1_epi8(2); TOKENS].map(|x| unknown!(ymm_reg, x));
        let mut sums = [_mm256_setzero_si256(); TOKENS];
        for _ in 0..rounds {
            weights = weights.map(|w| unknown!(ymm_reg, w));
            for t in 0..TOKENS {
                let mut pairs = _mm256_maddubs_epi16(weights[0], x[t]);
                for &w in &weights[1..] {
                    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w, x[t]));
                }
                sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs, ones));
            }
        }
        fold(&sums)
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn int8_vnni(rounds: usize) -> i32 {
        let (w, x) = (unknown!(ymm_reg, _mm256_set1_epi8(3)), unknown!(ymm_reg, _mm256_set1_epi8(2)));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, w, x);
            }
        }
        fold(&sums)
    }

    #[target_feature(enable = "avx2")]
    fn fold(sums: &[__m256i]) -> i32 {
        let sum = sums.iter().fold(_mm256_setzero_si256(), |all, &sum| _mm256_add_epi32(all, sum));
        let mut lanes = [0; 8];
        // SAFETY: the reference is to 32 bytes; the store needs no alignment.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
        lanes.into_iter().fold(0, i32::wrapping_add)
    }

    #[target_feature(enable = "avx2,fma")]
    fn float(rounds: usize) -> f32 {
        let (w, x) = (unknown!(ymm_reg, _mm256_set1_ps(1e-3)), unknown!(ymm_reg, _mm256_set1_ps(0.5)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(w, x, *sum);
            }
        }
        let sum = sums.into_iter().fold(_mm256_setzero_ps(), |all, sum| _mm256_add_ps(all, sum));
        let mut lanes = [0f32; 8];
        // SAFETY: the reference is to 32 bytes; the store needs no alignment.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
        lanes.into_iter().sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::PeakLoops;

    pub(super) const LOOPS: PeakLoops =
        PeakLoops { read, int8, int8_macs: SUMS * 64, float, float_macs: SUMS * 16 };

    /// Enough to hide the latency of two units.
    const SUMS: usize = 16;

    #[target_feature(enable = "avx512f")]
    fn read(bytes: &[u8]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 8];
        for lines in bytes.as_chunks::<512>().0 {
            for (sum, line) in sums.iter_mut().zip(lines.as_chunks::<64>().0) {
                // SAFETY: the reference is to 64 bytes; the load needs no alignment.
                let line = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
                *sum = _mm512_xor_si512(*sum, line);
            }
        }
        let sum = sums.into_iter().fold(_mm512_setzero_si512(), |all, sum| _mm512_xor_si512(all, sum));
        let mut words = [0u64; 8];
        // SAFETY: the reference is to 64 bytes; the store needs no alignment.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), sum) };
        words.into_iter().fold(0, |all, word| all ^ word)
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn int8(rounds: usize) -> i32 {
        let (w, x) = (unknown!(zmm_reg, _mm512_set1_epi8(3)), unknown!(zmm_reg, _mm512_set1_epi8(2)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, w, x);
            }
        }
        let sum = sums.into_iter().fold(_mm512_setzero_si512(), |all, sum| _mm512_add_epi32(all, sum));
        _mm512_reduce_add_epi32(sum)
    }

    #[target_feature(enable = "avx512f")]
    fn float(rounds: usize) -> f32 {
        let (w, x) = (unknown!(zmm_reg, _mm512_set1_ps(1e-3)), unknown!(zmm_reg, _mm512_set1_ps(0.5)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(w, x, *sum);
            }
        }
        let sum = sums.into_iter().fold(_mm512_setzero_ps(), |all, sum| _mm512_add_ps(all, sum));
        _mm512_reduce_add_ps(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_of_this_machine_is_measured() {
        let pool = ThreadPool::new(2).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let peaks = measure(&pool, isa).unwrap();
            // A hundredth and a hundred times of what machines of this decade do.
            for rate in [peaks.read_bytes_per_s, peaks.quantized_macs_per_s, peaks.float_macs_per_s] {
                assert!((1e8..1e15).contains(&rate), "{isa}: {peaks:?}");
            }
        }
    }

    #[test]
    fn every_byte_is_read() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| ((i * i) >> 3) as u8).collect();
        let expect = bytes.as_chunks::<8>().0.iter().fold(0, |all, word| all ^ u64::from_le_bytes(*word));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            // SAFETY: as in `measure`.
            assert_eq!(unsafe { (PeakLoops::of(isa).read)(&bytes) }, expect, "{isa}");
        }
    }

    /// The sums tell how many products were added.
    #[test]
    fn rounds_do_the_multiply_adds_that_they_count() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let loops = PeakLoops::of(isa);
            // SAFETY: as in `measure`.
            let (int8, float) = unsafe { ((loops.int8)(10), (loops.float)(10)) };
            assert_eq!(int8, (3 * 2 * 10 * loops.int8_macs) as i32, "{isa}");
            let expect = 1e-3 * 0.5 * (10 * loops.float_macs) as f32;
            assert!((float / expect - 1.0).abs() < 1e-3, "{isa}: {float}, expected {expect}");
        }
    }
}
