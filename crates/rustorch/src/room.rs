//! Whether a GPU has room for what is asked, said before anything is brought to it.

use engine::kv_shape;
use gpu::{Capabilities, DeviceMemory};
use model::{AttentionMode, LlamaConfig};

use crate::weights::{limits, pages_of};
use crate::{Error, NoRoom, Result};

/// What a GPU is asked to hold.
pub(crate) struct Demand<'a> {
    pub config: &'a LlamaConfig,
    pub attention: AttentionMode,
    /// Sequences that run together.
    pub num_seqs: usize,
    /// Bytes of KV pages, if less than all sequences can fill.
    pub kv_memory: Option<u64>,
    /// Bytes of weights that are still to be brought.
    pub weights: u64,
}

impl Demand<'_> {
    /// Bytes of the KV pages and of everything but the weights and them.
    fn of_runner(&self, capabilities: Capabilities, num_seqs: usize, max_seq_len: usize) -> (u64, u64) {
        let config = self.config.clone().with_max_seq_len(max_seq_len);
        let all = kv_shape(&config, pages_of(&config, num_seqs)).bytes();
        let cache = self.kv_memory.map_or(all, |bytes| bytes.min(all));
        let limits = limits(&config, num_seqs);
        let buffers = gpu::run_bytes(capabilities, &config, limits, kv_shape(&config, 0), self.attention);
        (cache, buffers)
    }

    fn total(&self, capabilities: Capabilities, num_seqs: usize, max_seq_len: usize) -> u64 {
        let (cache, buffers) = self.of_runner(capabilities, num_seqs, max_seq_len);
        self.weights + cache + buffers
    }

    /// Bytes of a layer's keys, which must lie in one buffer.
    fn of_layer(&self, capabilities: Capabilities, num_seqs: usize, max_seq_len: usize) -> u64 {
        self.of_runner(capabilities, num_seqs, max_seq_len).0 / (2 * self.config.num_layers as u64)
    }

    /// Refuses what there is no room for, in memory (if the driver tells how much there is) or in a buffer.
    ///
    /// # Errors
    /// Names what is needed, what there is, and what would fit.
    pub fn check(
        &self,
        device: &str,
        capabilities: Capabilities,
        memory: Option<DeviceMemory>,
    ) -> Result<()> {
        let memory = memory.unwrap_or(DeviceMemory { total: u64::MAX, available: u64::MAX });
        let (batch, context) = (self.num_seqs, self.config.max_seq_len);
        let needed = self.total(capabilities, batch, context);
        let available = memory.available;
        let of_layer = self.of_layer(capabilities, batch, context);
        if of_layer > capabilities.max_binding_bytes {
            let limit = bytes(capabilities.max_binding_bytes);
            return Err(no_room(NoRoom {
                device: device.to_owned(),
                needed: bytes(of_layer),
                parts: "the keys of a layer, in one buffer".to_owned(),
                available: limit.clone(),
                total: limit,
                hint: self.what_fits(capabilities, available),
            }));
        }
        if needed <= available {
            return Ok(());
        }
        let (cache, buffers) = self.of_runner(capabilities, batch, context);
        Err(no_room(NoRoom {
            device: device.to_owned(),
            needed: bytes(needed),
            parts: [(self.weights, "weights"), (cache, "KV cache"), (buffers, "buffers")]
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{} {what}", bytes(*count)))
                .collect::<Vec<_>>()
                .join(", "),
            available: bytes(available),
            total: bytes(memory.total),
            hint: self.what_fits(capabilities, available),
        }))
    }

    fn what_fits(&self, capabilities: Capabilities, available: u64) -> String {
        let (batch, context) = (self.num_seqs, self.config.max_seq_len);
        let fits = |batch, context| {
            self.total(capabilities, batch, context) <= available
                && self.of_layer(capabilities, batch, context) <= capabilities.max_binding_bytes
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

fn no_room(what: NoRoom) -> Error {
    Error::DoesNotFit(Box::new(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;

    const CAPABILITIES: Capabilities = Capabilities {
        matrix_tile: None,
        subgroup_size: None,
        f16: false,
        max_binding_bytes: 1 << 30,
        max_workgroup_bytes: 1 << 14,
    };

    fn config() -> LlamaConfig {
        LlamaConfig::from_gguf(&demo::gguf()).unwrap().with_max_seq_len(512)
    }

    fn check(num_seqs: usize, kv_memory: Option<u64>, weights: u64, available: u64) -> Result<()> {
        let config = config();
        let demand =
            Demand { config: &config, attention: AttentionMode::Fused, num_seqs, kv_memory, weights };
        demand.check("a GPU", CAPABILITIES, Some(DeviceMemory { total: 8 << 30, available }))
    }

    /// K and V of 2 heads of 64 in 5 layers take 2560 bytes a token in f16.
    const KV_OF_SEQUENCE: u64 = 512 * 2560;

    #[test]
    fn what_fits_is_named_and_fits() {
        let buffers = {
            let config = config();
            let demand = Demand {
                config: &config,
                attention: AttentionMode::Fused,
                num_seqs: 8,
                kv_memory: None,
                weights: 0,
            };
            demand.of_runner(CAPABILITIES, 8, 512).1
        };
        let room = 1000 + buffers + 8 * KV_OF_SEQUENCE;
        check(8, None, 1000, room).unwrap();
        let error = check(8, None, 1000, room - 1).unwrap_err().to_string();
        assert!(error.contains("a GPU: expected") && error.contains("KV cache"), "{error}");
        assert!(error.contains("hint: a batch of 7, or a context of 480 tokens, fits"), "{error}");
        check(7, None, 1000, room - 1).unwrap();
        check(8, Some(KV_OF_SEQUENCE), 1000, room - 1).unwrap();
        let error = check(8, None, 1000, 500).unwrap_err().to_string();
        assert!(error.contains("hint: use a smaller model"), "{error}");
    }

    #[test]
    fn a_layer_s_keys_lie_in_one_buffer() {
        let config = config();
        let demand = Demand {
            config: &config,
            attention: AttentionMode::Fused,
            num_seqs: 8,
            kv_memory: None,
            weights: 0,
        };
        let of_layer = 8 * KV_OF_SEQUENCE / 10;
        let with_limit = |max_binding_bytes| Capabilities { max_binding_bytes, ..CAPABILITIES };
        demand.check("a GPU", with_limit(of_layer), None).unwrap();
        let error = demand.check("a GPU", with_limit(of_layer - 1), None).unwrap_err().to_string();
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
