//! The paged K and V on the device: a buffer of each a layer.

use std::sync::Arc;

use model::{AttentionOp, KvDtype, KvHeads, KvShape, QkvShape, Result};

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::recorder::Recorder;

/// Cached keys and values of all layers, `[page][kv_head][page_size][head_dim]` each.
pub struct GpuKvCache {
    pub(crate) dtype: KvDtype,
    heads: Vec<KvHeads>,
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
        Ok(Self { dtype: shape.dtype, heads: shape.layers.clone(), layers })
    }
}

impl GpuKvCache {
    /// The pages of the layer whose keys and values an operation reads or writes.
    ///
    /// # Panics
    /// When its heads have another shape: kernels check no bounds.
    pub(crate) fn layer(&self, op: AttentionOp) -> &LayerPages {
        let QkvShape { num_kv_heads, head_dim, .. } = op.shape;
        let ours = self.heads[op.kv_layer];
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
