//! A share of the lines of an input.

use std::fmt;
use std::str::FromStr;

/// Every `count`-th line: those whose number less `index` is a multiple of `count`. Blank lines count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    index: u64,
    count: u64,
}

impl Shard {
    /// Every line.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Whether it has this line.
    pub fn contains(self, number: u64) -> bool {
        number % self.count == self.index % self.count
    }
}

impl FromStr for Shard {
    type Err = String;

    /// Reads `I/N`, as in `3/8` for the third of eight.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err("expected I/N with I from 1 to N, as in 1/4".to_owned()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}
