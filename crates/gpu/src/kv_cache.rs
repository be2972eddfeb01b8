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

    /// Bytes on the device of a cache of this shape.
    pub(crate) fn bytes(shape: &KvShape) -> u64 {
        let of_layer = |&heads: &KvHeads| 2 * DeviceBuffer::rounded(shape.layer_bytes(heads));
        shape.layers.iter().map(of_layer).sum()
    }

    /// Element type.
    pub(crate) fn dtype(&self) -> KvDtype {
        self.shape.dtype
    }

    /// The pages of the layer whose keys and values an operation on a planned batch reads or writes.
    ///
    /// # Panics
    /// When the plan has pages that the cache lacks or of another size, or the heads are not the cache's: kernels check no
    /// index.
    pub(crate) fn pages(&self, op: AttentionOp, counts: PlanCounts) -> &LayerPages {
        let KvShape { num_pages, page_size, .. } = self.shape;
        assert_eq!(counts.page_size, page_size, "tokens of a page: the plan's and the KV cache's");
        assert!(
            counts.end_page <= num_pages,
            "the plan reaches page {}, but the KV cache has {num_pages}",
            counts.end_page.saturating_sub(1)
        );
        let QkvShape { num_kv_heads, head_dim, .. } = op.shape;
        let ours = self.shape.layers[op.kv_layer];
        assert_eq!(
            KvHeads { num_kv_heads, head_dim },
            ours,
            "heads and their width: the model's and the KV cache's"
        );
        &self.layers[op.kv_layer]
    }
}

impl LayerPages {
    /// K and V.
    pub fn pages(&self) -> (&DeviceBuffer, &DeviceBuffer) {
        (&self.k, &self.v)
    }
}
