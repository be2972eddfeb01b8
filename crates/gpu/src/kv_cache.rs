//! The paged K and V on the device: a buffer of each a layer.

use std::sync::Arc;

use model::{KvDtype, KvShape, QkvShape, Result};

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
    pub(crate) fn new(gpu: &Gpu, recorder: &Arc<Recorder>, shape: KvShape) -> Result<Self> {
        let bytes = layer_bytes(shape);
        let layer = |_| {
            Ok(LayerPages {
                k: DeviceBuffer::new(gpu, recorder, "the KV cache's keys of a layer", bytes)?,
                v: DeviceBuffer::new(gpu, recorder, "the KV cache's values of a layer", bytes)?,
            })
        };
        Ok(Self { shape, layers: (0..shape.num_layers).map(layer).collect::<Result<_>>()? })
    }

    /// Bytes on the device of a cache of this shape.
    pub(crate) fn bytes(shape: KvShape) -> u64 {
        2 * shape.num_layers as u64 * DeviceBuffer::rounded(layer_bytes(shape))
    }

    /// Element type.
    pub(crate) fn dtype(&self) -> KvDtype {
        self.shape.dtype
    }

    /// The pages of a layer, for a planned batch and heads of this shape.
    ///
    /// # Panics
    /// When the plan has pages that the cache lacks or of another size, or the heads are not the cache's: kernels check no
    /// index.
    pub(crate) fn pages(&self, layer: usize, counts: PlanCounts, heads: QkvShape) -> &LayerPages {
        let KvShape { num_pages, page_size, num_kv_heads, head_dim, .. } = self.shape;
        assert_eq!(counts.page_size, page_size, "tokens of a page: the plan's and the KV cache's");
        assert!(
            counts.end_page <= num_pages,
            "the plan reaches page {}, but the KV cache has {num_pages}",
            counts.end_page.saturating_sub(1)
        );
        assert_eq!(
            (heads.num_kv_heads, heads.head_dim),
            (num_kv_heads, head_dim),
            "heads and their width: the model's and the KV cache's"
        );
        &self.layers[layer]
    }
}

impl LayerPages {
    /// K and V.
    pub fn pages(&self) -> (&DeviceBuffer, &DeviceBuffer) {
        (&self.k, &self.v)
    }
}

/// Bytes of a layer's keys, and as many of its values.
fn layer_bytes(shape: KvShape) -> u64 {
    (shape.elements_per_layer() * shape.dtype.bytes()) as u64
}
