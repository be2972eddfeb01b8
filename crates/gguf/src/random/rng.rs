//! Random numbers that are the same on every platform: integer arithmetic, and no function that a libm may round its
//! own way. Files made from a seed are therefore the same bytes everywhere, and figures recorded for one hold.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer from 0 to `n - 1`. Its bias, below `n / 2^32`, is of no account here.
    pub fn below(&mut self, n: u32) -> u32 {
        (((self.next_u64() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// A number from `low` up to, but without, `high`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.next_u64() >> 40) as f32 / (1 << 24) as f32)
    }

    /// A number of mean 0 and standard deviation 1 from a bell curve: the sum of four uniform ones, at most 3.47 from 0.
    pub fn normal(&mut self) -> f32 {
        let bits = self.next_u64();
        let sum: u32 = (0..4).map(|i| (bits >> (16 * i)) as u32 & 0xffff).sum();
        let deviation = 65536.0 / 3f64.sqrt(); // sqrt(4 / 12) of a uniform number's range
        ((f64::from(sum) - 2.0 * 65535.0) / deviation) as f32
    }

    /// `len` numbers of standard deviation `sigma`.
    pub fn normals(&mut self, len: usize, sigma: f32) -> Vec<f32> {
        (0..len).map(|_| sigma * self.normal()).collect()
    }

    /// Fills `bytes` with random bits.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}
