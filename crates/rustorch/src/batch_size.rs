//! How many sequences run together unless the caller says: as many as the machine gains from, if their KV pages have room.

use std::fs;

use model::LlamaConfig;

use crate::sizes::pages_of;

/// Sequences that run together on a processor at most. Its cores have reached their speed with fewer; more are for the sake of
/// requests that would otherwise wait for their first token.
const MOST_ON_CPU: usize = 64;

/// On a GPU, where a step's time hardly grows with the first of them.
const MOST_ON_GPU: usize = 128;

/// KV pages take this part of the memory that is free, as other programs and the file's cache need some too.
const KV_PART: u64 = 4;

/// KV pages where the system does not tell how much memory is free.
const KV_UNKNOWN: u64 = 1 << 30;

/// Tokens that the pages must hold for each sequence, unless its context is shorter. With fewer, sequences that grow would
/// take each other's pages all the time.
const LEAST_TOKENS: usize = 512;

/// A batch size that was chosen, and why; of replicas, for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSize {
    /// Sequences that run together.
    pub num_seqs: usize,
    /// Bytes of KV pages for them.
    pub kv_memory: u64,
    /// What decided it, in words.
    pub reason: String,
}

/// What KV pages may take, and what bounds it.
struct Memory {
    bytes: u64,
    reason: String,
}

/// Chooses for each of so many replicas, or ranks of these, on a processor; `kv_memory` is the caller's limit, for one. `config` is of a
/// rank.
pub(crate) fn on_cpu(config: &LlamaConfig, kv_memory: Option<u64>, num_devices: u64) -> BatchSize {
    let part = KV_PART * num_devices;
    let memory = match (kv_memory, free_memory()) {
        (Some(bytes), _) => Memory { bytes, reason: format!("{} for KV pages", mebibytes(bytes)) },
        (None, Some(free)) => Memory {
            bytes: free / part,
            reason: format!("1/{part} of the {} that are free", mebibytes(free)),
        },
        (None, None) => {
            Memory { bytes: KV_UNKNOWN / num_devices, reason: "no word from the system on memory".to_owned() }
        }
    };
    choose(config, MOST_ON_CPU, &memory)
}

/// Chooses for a GPU, of whose rank `config` is, on which so many sequences with so many bytes of KV pages fit if `fits` says so.
pub(crate) fn on_gpu(
    config: &LlamaConfig,
    kv_memory: Option<u64>,
    fits: impl Fn(usize, u64) -> bool,
) -> BatchSize {
    let limit = kv_memory.unwrap_or(u64::MAX);
    let mut num_seqs = MOST_ON_GPU;
    while num_seqs > 1 {
        let mut bytes = all_pages(config, num_seqs).min(limit);
        let least = least_pages(config, num_seqs);
        while bytes >= least {
            if fits(num_seqs, bytes) {
                let reason = match bytes < all_pages(config, num_seqs) {
                    true => "as much as fits the GPU",
                    false => "room for all of full length",
                };
                return BatchSize { num_seqs, kv_memory: bytes, reason: reason.to_owned() };
            }
            bytes = bytes / 4 * 3;
        }
        num_seqs /= 2;
    }
    BatchSize {
        num_seqs: 1,
        kv_memory: all_pages(config, 1).min(limit),
        reason: "no room for more".to_owned(),
    }
}

fn choose(config: &LlamaConfig, most: usize, memory: &Memory) -> BatchSize {
    // The longest request is served in any case, as it is with a batch size of 1.
    let mut num_seqs = most;
    while num_seqs > 1 && memory.bytes < least_pages(config, num_seqs) {
        num_seqs /= 2;
    }
    let all = all_pages(config, num_seqs);
    let reason = match memory.bytes < all || num_seqs < most {
        true => memory.reason.clone(),
        false => "room for all of full length".to_owned(),
    };
    BatchSize { num_seqs, kv_memory: memory.bytes.max(all_pages(config, 1)).min(all), reason }
}

/// Bytes of pages that so many sequences of full length fill.
fn all_pages(config: &LlamaConfig, num_seqs: usize) -> u64 {
    page_bytes(config).saturating_mul(pages_of(config, num_seqs) as u64)
}

/// Bytes of pages with which so many sequences are worth running.
fn least_pages(config: &LlamaConfig, num_seqs: usize) -> u64 {
    let pages = LEAST_TOKENS.div_ceil(config.page_size).min(config.pages_per_seq()) * num_seqs;
    page_bytes(config).saturating_mul(pages.max(config.pages_per_seq()) as u64)
}

fn page_bytes(config: &LlamaConfig) -> u64 {
    config.spec.kv_shape(1, config.page_size, config.kv_dtype).bytes()
}

/// Bytes that this process can still use without others swapping (Linux): of the machine, or of its control group.
fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let of_machine = parse_meminfo(&text)?;
    let number = |file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let of_group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(most, current)| most.saturating_sub(current));
    Some(of_group.map_or(of_machine, |of_group| of_group.min(of_machine)))
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ctx: usize) -> LlamaConfig {
        LlamaConfig::from_gguf(&crate::demo::gguf()).expect("a configuration").with_max_seq_len(ctx)
    }

    fn chosen(ctx: usize, bytes: u64) -> (usize, u64) {
        let memory = Memory { bytes, reason: "so much".to_owned() };
        let BatchSize { num_seqs, kv_memory, reason } = choose(&config(ctx), 64, &memory);
        let is_full = kv_memory == all_pages(&config(ctx), 64);
        assert_eq!(reason, if is_full { "room for all of full length" } else { "so much" });
        (num_seqs, kv_memory)
    }

    #[test]
    fn pages_cap_the_batch() {
        let page = page_bytes(&config(4096));
        let per_seq = 4096 / 32;
        assert_eq!(chosen(4096, u64::MAX), (64, 64 * per_seq * page));
        assert_eq!(chosen(4096, 32 * per_seq * page), (64, 32 * per_seq * page));
        // 512 tokens for each are 16 pages.
        assert_eq!(chosen(4096, 64 * 16 * page), (64, 64 * 16 * page));
        assert_eq!(chosen(4096, 64 * 16 * page - 1).0, 32);
        // One of full length has to fit, whatever the memory.
        assert_eq!(chosen(4096, 0), (1, per_seq * page));
        assert_eq!(chosen(64, 64 * 2 * page), (64, 64 * 2 * page));
    }

    #[test]
    fn a_gpu_gets_what_fits() {
        let config = config(4096);
        let all = all_pages(&config, MOST_ON_GPU);
        assert_eq!(on_gpu(&config, None, |_, _| true).kv_memory, all);
        assert_eq!(on_gpu(&config, Some(all / 2), |_, _| true).kv_memory, all / 2);
        let half = on_gpu(&config, None, |_, bytes| bytes <= all / 2);
        assert_eq!((half.num_seqs, half.kv_memory), (MOST_ON_GPU, all / 4 * 3 / 4 * 3 / 4 * 3));
        assert_eq!(on_gpu(&config, None, |num_seqs, _| num_seqs <= 20).num_seqs, 16);
        assert_eq!(on_gpu(&config, None, |_, _| false).num_seqs, 1);
    }

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       24578 kB\nMemFree:  10 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(parse_meminfo(text), Some(2 << 20));
        assert_eq!(parse_meminfo("MemTotal: 1 kB\n"), None);
    }
}
