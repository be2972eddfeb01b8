//! How much of a card's memory a model takes: the sums of what allocations take, by the functions that make them.

use gguf::Gguf;
use model::{BufferRole, BufferShape, Layout, LlamaConfig, ModelShard};

use crate::buffer::CudaBuffer;
use crate::experts::CudaRoutes;
use crate::kv_cache::CudaKvCache;
use crate::plan::CudaPlan;

/// Bytes that the weights of a file take on a card; of a group, on that of the first rank, which has the most. Heads and routers that
/// several ranks have are not counted for each: they are small.
pub fn weight_bytes(gguf: &Gguf, config: &LlamaConfig, shard: &ModelShard) -> u64 {
    let names = &config.spec.tensors;
    let [table, head] = [names.embedding, names.output].map(|name| format!("{name}.weight"));
    let has_head = gguf.find_tensor(&head).is_some();
    let values = |rows, cols| CudaBuffer::bytes(rows, cols, BufferRole::Values);
    let of_tensors = gguf.tensors().map(|tensor| {
        let packed = |rows| pack::packed_bytes(tensor.format(), rows, tensor.cols());
        match tensor.dims().len() {
            // The embedding table is on every rank, and beside it what the rank has of it as LM head.
            2 if !shard.rank.is_only() && tensor.name() == table => {
                packed(tensor.rows()) + if has_head { 0 } else { packed(most_rows(shard, tensor.rows())) }
            }
            2 => packed(most_rows(shard, tensor.rows())),
            // A matrix for each expert.
            3 => {
                let experts = tensor.dims()[2];
                experts * packed(most_rows(shard, tensor.rows() / experts as usize))
            }
            _ => values(1, tensor.cols()),
        }
    });
    let ropes = config.spec.ropes.iter().map(|rope| values(config.max_seq_len, rope.dim));
    of_tensors.chain(ropes).sum()
}

/// Rows of a matrix that the first rank has, if it is cut as unevenly as any of the model.
fn most_rows(shard: &ModelShard, rows: usize) -> usize {
    let of_layers = shard.layers.iter().flat_map(|layer| [&layer.attended, &layer.activated]);
    let all = of_layers.chain([&shard.hidden, &shard.vocab]);
    all.map(|shards| (rows * shards.of(0).len()).div_ceil(shards.cols())).max().unwrap_or(rows)
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
