//! Whether a model and its runner fit the memory of a device, said before anything is brought to it.

use devices::DeviceMemory;
use model::{AttentionMode, Layout, LlamaConfig, Rank};

use crate::sizes::{limits, page_bytes, pages_of};
use crate::{DoesNotFit, Error, Result};

/// How much a device holds.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Its name.
    pub device: String,
    /// Largest buffer.
    pub max_buffer_bytes: u64,
    /// Its memory, where the driver tells.
    pub memory: Option<DeviceMemory>,
}

impl Limits {
    /// Of a device that is not asked: the system tells when its memory is used up.
    pub const NONE: Self = Self { device: String::new(), max_buffer_bytes: u64::MAX, memory: None };
}

/// Bytes of a layout on a device ([`Backend::footprint`](model::Backend::footprint)).
type Footprint<'a> = dyn Fn(&Layout) -> u64 + 'a;

/// What a device is asked to hold.
pub(crate) struct Demand<'a> {
    pub config: &'a LlamaConfig,
    pub attention: AttentionMode,
    /// Ranks of the device's group; what counts is the one that takes the most.
    pub ranks: usize,
    /// Sequences that run together.
    pub num_seqs: usize,
    /// Bytes of KV pages, if less than all sequences can fill.
    pub kv_memory: Option<u64>,
    /// Bytes of weights that are still to be brought.
    pub weights: u64,
}

/// Bytes of a demand.
struct Needed {
    weights: u64,
    cache: u64,
    /// Everything but weights and cache.
    buffers: u64,
    /// The largest buffer of the cache.
    layer: u64,
}

impl Needed {
    fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.buffers)
    }
}

impl Demand<'_> {
    /// What so many sequences of such a context take.
    fn needed(&self, footprint: &Footprint<'_>, num_seqs: usize, max_seq_len: usize) -> Result<Needed> {
        let config = self.config.clone().with_max_seq_len(max_seq_len);
        let all = pages_of(&config, num_seqs);
        let page_bytes = page_bytes(&config, self.ranks)?;
        let num_pages = self.kv_memory.map_or(all, |bytes| all.min((bytes / page_bytes) as usize));
        let (limits, fullest) = (limits(&config, num_seqs, num_pages), Rank::new(0, self.ranks));
        let layout = Layout::of_rank(&config, limits, self.attention, fullest)?;
        let cache = layout.kv.bytes();
        let layers = layout.kv.layers.iter().map(|&heads| layout.kv.layer_bytes(heads));
        Ok(Needed {
            weights: self.weights,
            cache,
            buffers: footprint(&layout).saturating_sub(cache),
            layer: layers.max().unwrap_or(0),
        })
    }

    /// Refuses what does not fit, in the memory (if the driver tells how much there is) or in a buffer.
    ///
    /// # Errors
    /// Names what is needed, what there is, and what would fit.
    pub fn check(&self, limits: &Limits, footprint: &Footprint<'_>) -> Result<()> {
        let memory = limits.memory.unwrap_or(DeviceMemory { total: u64::MAX, available: u64::MAX });
        let needed = self.needed(footprint, self.num_seqs, self.config.max_seq_len)?;
        let available = memory.available;
        if needed.layer > limits.max_buffer_bytes {
            let limit = bytes(limits.max_buffer_bytes);
            return Err(does_not_fit(DoesNotFit {
                device: limits.device.clone(),
                needed: bytes(needed.layer),
                parts: "the keys of a layer, in one buffer".to_owned(),
                available: limit.clone(),
                total: limit,
                hint: self.what_fits(limits, footprint, available),
            }));
        }
        if needed.total() <= available {
            return Ok(());
        }
        let parts = [(needed.weights, "weights"), (needed.cache, "KV cache"), (needed.buffers, "buffers")];
        Err(does_not_fit(DoesNotFit {
            device: limits.device.clone(),
            needed: bytes(needed.total()),
            parts: parts
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{} {what}", bytes(*count)))
                .collect::<Vec<_>>()
                .join(", "),
            available: bytes(available),
            total: bytes(memory.total),
            hint: self.what_fits(limits, footprint, available),
        }))
    }

    fn what_fits(&self, limits: &Limits, footprint: &Footprint<'_>, available: u64) -> String {
        let (batch, context) = (self.num_seqs, self.config.max_seq_len);
        let fits = |batch, context| {
            self.needed(footprint, batch, context)
                .is_ok_and(|needed| needed.total() <= available && needed.layer <= limits.max_buffer_bytes)
        };
        let smaller_batch = largest(batch, |batch| fits(batch, context));
        let shorter_context = largest(context, |context| fits(batch, context));
        match (smaller_batch, shorter_context) {
            (None, None) => match largest(context, |context| fits(1, context)) {
                Some(context) => format!("a batch of 1 with a context of {context} tokens fits"),
                None => "use a smaller model or one with fewer bits per weight, or the CPU".to_owned(),
            },
            (Some(batch), None) => format!("a batch of {batch} fits"),
            (None, Some(context)) => format!("a context of {context} tokens fits"),
            (Some(batch), Some(context)) => {
                format!("a batch of {batch}, or a context of {context} tokens, fits")
            }
        }
    }
}

/// The largest number from 1 to `most` that fits, given that all smaller ones do as well.
fn largest(most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    (low > 0).then_some(low)
}

fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| count >> shift > 0);
    unit.map_or(format!("{count} B"), |(unit, shift)| {
        format!("{:.2} {unit}", count as f64 / f64::from(1u32 << shift))
    })
}

fn does_not_fit(what: DoesNotFit) -> Error {
    Error::DoesNotFit(Box::new(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;

    fn config() -> LlamaConfig {
        LlamaConfig::from_gguf(&demo::gguf()).unwrap().with_max_seq_len(512)
    }

    fn demand(config: &LlamaConfig, num_seqs: usize, kv_memory: Option<u64>, weights: u64) -> Demand<'_> {
        Demand { config, attention: AttentionMode::Fused, ranks: 1, num_seqs, kv_memory, weights }
    }

    /// As of a device that takes what the values take.
    fn footprint(layout: &Layout) -> u64 {
        layout.buffers().map(|shape| 4 * (shape.rows * shape.cols) as u64).sum::<u64>() + layout.kv.bytes()
    }

    fn check(num_seqs: usize, kv_memory: Option<u64>, weights: u64, available: u64) -> Result<()> {
        let memory = Some(DeviceMemory { total: 8 << 30, available });
        let limits = Limits { device: "a GPU".to_owned(), max_buffer_bytes: 1 << 30, memory };
        demand(&config(), num_seqs, kv_memory, weights).check(&limits, &footprint)
    }

    /// K and V of 2 heads of 64 in 5 layers take 2560 bytes a token in f16.
    const KV_OF_SEQUENCE: u64 = 512 * 2560;

    #[test]
    fn what_fits_is_named_and_fits() {
        let buffers = demand(&config(), 8, None, 0).needed(&footprint, 8, 512).unwrap().buffers;
        let enough = 1000 + buffers + 8 * KV_OF_SEQUENCE;
        check(8, None, 1000, enough).unwrap();
        let error = check(8, None, 1000, enough - 1).unwrap_err().to_string();
        assert!(error.contains("a GPU: expected") && error.contains("KV cache"), "{error}");
        assert!(error.contains("hint: a batch of 7, or a context of 480 tokens, fits"), "{error}");
        check(7, None, 1000, enough - 1).unwrap();
        check(8, Some(KV_OF_SEQUENCE), 1000, enough - 1).unwrap();
        let error = check(8, None, 1000, 500).unwrap_err().to_string();
        assert!(error.contains("hint: use a smaller model"), "{error}");
    }

    #[test]
    fn a_layer_s_keys_lie_in_one_buffer() {
        let config = config();
        let demand = demand(&config, 8, None, 0);
        let of_layer = 8 * KV_OF_SEQUENCE / 10;
        let with_limit =
            |max_buffer_bytes| Limits { device: "a GPU".to_owned(), max_buffer_bytes, memory: None };
        demand.check(&with_limit(of_layer), &footprint).unwrap();
        let error = demand.check(&with_limit(of_layer - 1), &footprint).unwrap_err().to_string();
        assert!(error.contains("in one buffer") && error.contains("hint: a batch of 7, or"), "{error}");
    }

    #[test]
    fn the_largest_number_is_found() {
        for most in 1..20 {
            for limit in 0..25 {
                let expect = Some(limit.min(most)).filter(|&largest| largest > 0);
                assert_eq!(largest(most, |n| n <= limit), expect);
            }
        }
    }
}
