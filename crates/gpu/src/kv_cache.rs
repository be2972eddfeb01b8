//! The paged K and V on the device: a buffer of each a layer.

use std::sync::Arc;

use model::{KvDtype, KvShape, Result};

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::recorder::Recorder;

/// Cached keys and values of all layers, `[page][kv_head][page_size][head_dim]` each.
pub struct GpuKvCache {
    pub(crate) dtype: KvDtype,
    pub(crate) layers: Vec<LayerPages>,
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
        let bytes = (shape.elements_per_layer() * shape.dtype.bytes()) as u64;
        let layer = |_| {
            Ok(LayerPages {
                k: DeviceBuffer::new(gpu, recorder, "the KV cache's keys of a layer", bytes)?,
                v: DeviceBuffer::new(gpu, recorder, "the KV cache's values of a layer", bytes)?,
            })
        };
        Ok(Self { dtype: shape.dtype, layers: (0..shape.num_layers).map(layer).collect::<Result<_>>()? })
    }
}

impl LayerPages {
    /// K and V.
    pub fn pages(&self) -> (&DeviceBuffer, &DeviceBuffer) {
        (&self.k, &self.v)
    }
}
