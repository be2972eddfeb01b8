//! The paged K and V on the device: a buffer of each a layer.

use std::sync::Arc;

use model::{AttentionOp, KvDtype, KvHeads, KvShape, QkvShape, Result};

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::plan::PlanCounts;
use crate::recorder::Recorder;

/// Cached keys and values of all layers, `[page][kv_head][page_size][head_dim]` each.
pub struct GpuKvCache {
    shape: KvShape,
    layers: Vec<LayerPages>,
}

/// The pages of a layer.
pub(crate) struct LayerPages {
    pub k: DeviceBuffer,
    pub v: DeviceBuffer,
}

impl GpuKvCache {
    /// Makes empty pages.
    ///
    /// # Errors
    /// When the device has no memory left, or a layer's pages exceed its largest binding.
    pub(crate) fn new(gpu: &Gpu, recorder: &Arc<Recorder>, shape: &KvShape) -> Result<Self> {
        let layer = |&heads: &KvHeads| {
            let bytes = shape.layer_bytes(heads);
            Ok(LayerPages {
                k: DeviceBuffer::new(gpu, recorder, "the KV cache's keys of a layer", bytes)?,
                v: DeviceBuffer::new(gpu, recorder, "the KV cache's values of a layer", bytes)?,
            })
        };
        let layers = shape.layers.iter().map(layer).collect::<Result<_>>()?;
        Ok(Self { shape: shape.clone(), layers })
    }

    /// Bytes on the device of a cache of this shape; at most `u64::MAX`.
    pub(crate) fn bytes(shape: &KvShape) -> u64 {
        let of_layer = |&heads: &KvHeads| DeviceBuffer::rounded(shape.layer_bytes(heads)).saturating_mul(2);
        shape.layers.iter().map(of_layer).fold(0, u64::saturating_add)
    }

    /// Element type.
    pub(crate) fn dtype(&self) -> KvDtype {
        self.shape.dtype
    }

    /// The pages that an operation reads or writes in a planned step.
    ///
    /// # Panics
    /// When the plan has pages that the cache lacks or of another size, or the heads are not the layer's: kernels check no
    /// index.
    pub(crate) fn layer(&self, op: AttentionOp, counts: PlanCounts) -> &LayerPages {
        let KvShape { num_pages, page_size, .. } = self.shape;
        let QkvShape { num_kv_heads, head_dim, .. } = op.shape;
        assert_eq!(counts.page_size, page_size, "tokens of a page: the plan's and the KV cache's");
        assert!(
            counts.end_page <= num_pages,
            "the plan reaches page {}, but the KV cache has {num_pages}",
            counts.end_page.saturating_sub(1)
        );
        let ours = self.shape.layers[op.kv_layer];
        assert_eq!(KvHeads { num_kv_heads, head_dim }, ours, "the KV cache has heads of another shape");
        &self.layers[op.kv_layer]
    }
}

impl LayerPages {
    /// K and V.
    pub fn pages(&self) -> (&DeviceBuffer, &DeviceBuffer) {
        (&self.k, &self.v)
    }
}
