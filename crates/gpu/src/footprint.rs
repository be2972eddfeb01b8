//! How much of a device's memory a model takes: the sums of what allocations take, by the functions that make them.

use gguf::Gguf;
use model::{AttentionMode, BatchLimits, KvShape, LlamaConfig, qkv_shape};

use crate::activations::{GpuBuffer, Twin};
use crate::device::Capabilities;
use crate::kv_cache::GpuKvCache;
use crate::pack;
use crate::plan::GpuPlan;

/// Bytes that the weights of a file take on a device.
pub fn weight_bytes(gguf: &Gguf, config: &LlamaConfig) -> u64 {
    let of_tensors = gguf.tensors().map(|tensor| match tensor.dims().len() {
        2 => pack::packed_bytes(tensor.format(), tensor.rows(), tensor.cols()),
        _ => GpuBuffer::values_bytes(1, tensor.cols()),
    });
    of_tensors.sum::<u64>() + GpuBuffer::values_bytes(config.max_seq_len, config.rope.dim)
}

/// Bytes that a runner takes for steps up to `limits` over a cache of this shape.
pub fn run_bytes(
    capabilities: Capabilities,
    config: &LlamaConfig,
    limits: BatchLimits,
    cache: KvShape,
    attention: AttentionMode,
) -> u64 {
    let (hidden, inner, q) = (config.hidden_size, config.intermediate_size, config.q_dim());
    let tokens = limits.max_tokens;
    let activations = |rows, cols| GpuBuffer::bytes(capabilities, rows, cols, Twin::of_multiplied(cols));
    let of_step = [hidden, hidden, hidden, qkv_shape(config).cols(), q, 2 * inner, inner];
    let of_step: u64 = of_step.into_iter().map(|cols| activations(tokens, cols)).sum();
    let scores = match attention {
        AttentionMode::Fused => 0,
        AttentionMode::Reference => activations(tokens, config.num_heads * config.max_seq_len),
    };
    let logits = activations(limits.max_logit_rows, config.vocab_size);
    let plan = GpuPlan::bytes(limits, qkv_shape(config), cache.page_size);
    GpuKvCache::bytes(cache) + of_step + scores + logits + plan
}
