//! The paged K and V on the card.

use std::sync::Arc;

use model::{AttentionOp, KvDtype, KvHeads, KvShape, QkvShape, Result};

use crate::driver::{Context, Memory};
use crate::plan::CudaPlan;

/// Cached keys and values of all layers, `[page][kv_head][page_size][head_dim]` each.
pub struct CudaKvCache {
    shape: KvShape,
    layers: Vec<[Memory; 2]>,
}

impl CudaKvCache {
    /// Empty pages.
    pub(crate) fn new(context: &Arc<Context>, shape: &KvShape) -> Result<Self> {
        let layer = |&heads: &KvHeads| {
            let bytes = shape.layer_bytes(heads);
            let memory = |what| Memory::new(context, what, bytes);
            Ok([memory("the KV cache's keys of a layer")?, memory("the KV cache's values of a layer")?])
        };
        Ok(Self { shape: shape.clone(), layers: shape.layers.iter().map(layer).collect::<Result<_>>()? })
    }

    /// Bytes on the card.
    pub(crate) fn bytes(shape: &KvShape) -> u64 {
        let of_layer = |&heads: &KvHeads| Memory::rounded(shape.layer_bytes(heads)).saturating_mul(2);
        shape.layers.iter().map(of_layer).fold(0, u64::saturating_add)
    }

    /// Whether elements are f16.
    pub(crate) fn is_half(&self) -> bool {
        self.shape.dtype == KvDtype::F16
    }

    /// The addresses of the keys and values that an operation reads or writes in a planned step.
    ///
    /// # Panics
    /// When the plan has pages that the cache lacks or of another size, or the heads are not the layer's: kernels check no
    /// index.
    pub(crate) fn pages(&self, op: AttentionOp, plan: &CudaPlan) -> [u64; 2] {
        let QkvShape { num_kv_heads, head_dim, .. } = op.shape;
        let (num_pages, counts) = (self.shape.num_pages, plan.counts());
        assert_eq!(counts.page_size, self.shape.page_size, "tokens of a page: the plan's and the KV cache's");
        assert!(
            counts.end_page <= num_pages,
            "the plan reaches page {}, but the KV cache has {num_pages}",
            counts.end_page.saturating_sub(1)
        );
        let ours = self.shape.layers[op.kv_layer];
        assert_eq!(KvHeads { num_kv_heads, head_dim }, ours, "the KV cache has heads of another shape");
        self.layers[op.kv_layer].each_ref().map(Memory::address)
    }
}
