//! How much of a card's memory a model takes: the sums of what allocations take, by the functions that make them.

use gguf::Gguf;
use model::{BufferRole, BufferShape, Layout, LlamaConfig};

use crate::buffer::CudaBuffer;
use crate::experts::CudaRoutes;
use crate::kv_cache::CudaKvCache;
use crate::plan::CudaPlan;

/// Bytes that the weights of a file take on a card.
pub fn weight_bytes(gguf: &Gguf, config: &LlamaConfig) -> u64 {
    let values = |rows, cols| CudaBuffer::bytes(rows, cols, BufferRole::Values);
    let of_tensors = gguf.tensors().map(|tensor| match tensor.dims().len() {
        2 => pack::packed_bytes(tensor.format(), tensor.rows(), tensor.cols()),
        // A matrix for each expert.
        3 => {
            let experts = tensor.dims()[2];
            let rows = tensor.rows() / experts as usize;
            experts * pack::packed_bytes(tensor.format(), rows, tensor.cols())
        }
        _ => values(1, tensor.cols()),
    });
    let ropes = config.spec.ropes.iter().map(|rope| values(config.max_seq_len, rope.dim));
    of_tensors.chain(ropes).sum()
}

/// Bytes of the buffers, the KV cache and the plan of a runner; at most `u64::MAX`.
pub(crate) fn of_layout(layout: &Layout) -> u64 {
    let Layout { limits, kv, attention, .. } = layout;
    let buffer = |BufferShape { rows, cols, role }: BufferShape| CudaBuffer::bytes(rows, cols, role);
    let routes = layout.experts.as_ref().map_or(0, |experts| CudaRoutes::bytes(experts.routes));
    [routes, CudaKvCache::bytes(kv), CudaPlan::bytes(*limits, attention)]
        .into_iter()
        .chain(layout.buffers().map(buffer))
        .fold(0, u64::saturating_add)
}
