//! How much of a device's memory a model takes: the sums of what allocations take, by the functions that make them.

use gguf::Gguf;
use model::{BufferShape, Layout, LlamaConfig};

use crate::activations::{GpuBuffer, Twin};
use crate::device::Capabilities;
use crate::experts::GpuRoutes;
use crate::kv_cache::GpuKvCache;
use crate::plan::GpuPlan;

/// Bytes that the weights of a file take on a device.
pub fn weight_bytes(gguf: &Gguf, config: &LlamaConfig) -> u64 {
    let of_tensors = gguf.tensors().map(|tensor| match tensor.dims().len() {
        2 => pack::packed_bytes(tensor.format(), tensor.rows(), tensor.cols()),
        // A matrix for each expert.
        3 => {
            let experts = tensor.dims()[2];
            let rows = tensor.rows() / experts as usize;
            experts * pack::packed_bytes(tensor.format(), rows, tensor.cols())
        }
        _ => GpuBuffer::values_bytes(1, tensor.cols()),
    });
    let ropes = config.spec.ropes.iter();
    let ropes = ropes.map(|rope| GpuBuffer::values_bytes(config.max_seq_len, rope.dim));
    of_tensors.chain(ropes).sum()
}

/// Bytes of the buffers, the KV cache and the plan of a runner; at most `u64::MAX`.
pub(crate) fn of_layout(capabilities: Capabilities, layout: &Layout) -> u64 {
    let Layout { limits, kv, attention, .. } = layout;
    let buffer = |BufferShape { rows, cols, role }: BufferShape| {
        GpuBuffer::bytes(capabilities, rows, cols, Twin::of(role, cols))
    };
    let routes = layout.experts.as_ref().map_or(0, |experts| GpuRoutes::bytes(experts.routes));
    [routes, GpuKvCache::bytes(kv), GpuPlan::bytes(*limits, attention, kv.page_size)]
        .into_iter()
        .chain(layout.buffers().map(buffer))
        .fold(0, u64::saturating_add)
}
