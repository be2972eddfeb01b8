//! Paged K and V of all layers.

use std::sync::Mutex;

use model::{Error, KvDtype, KvHeads, KvShape, Result};

use crate::kernels::{KvElement, PageLayout};

/// The paged KV cache. A layer's K (and V) is `[pages, num_kv_heads, page_size, head_dim]`.
pub struct CpuKvCache {
    layouts: Vec<PageLayout>, // [layers]
    pub(crate) pages: Pages,
    /// Scratch for the partial results of threads that share a long context.
    pub(crate) partials: Mutex<Vec<f32>>,
}

/// The elements, by type.
pub(crate) enum Pages {
    F16(LayerPages<u16>),
    F32(LayerPages<f32>),
}

/// `[layers]` of pages.
pub(crate) struct LayerPages<E> {
    pub k: Vec<Vec<E>>,
    pub v: Vec<Vec<E>>,
}

impl<E: KvElement + Default> LayerPages<E> {
    /// Zeroed lazily by the system: pages that no sequence reaches cost no memory.
    fn new(shape: &KvShape) -> Option<Self> {
        let layers = || -> Option<Vec<Vec<E>>> {
            let of_layer = |&heads: &KvHeads| {
                // Asks first, since `vec!` aborts on failure; the zeroed allocation then is the same size.
                Vec::<E>::new().try_reserve_exact(shape.layer_elements(heads)).ok()?;
                Some(vec![E::default(); shape.layer_elements(heads)])
            };
            shape.layers.iter().map(of_layer).collect()
        };
        Some(Self { k: layers()?, v: layers()? })
    }
}

impl CpuKvCache {
    /// A cache of zeros, with scratch for so many floats of partial results.
    pub(crate) fn new(shape: &KvShape, partials: usize) -> Result<Self> {
        let pages = match shape.dtype {
            KvDtype::F16 => LayerPages::new(shape).map(Pages::F16),
            KvDtype::F32 => LayerPages::new(shape).map(Pages::F32),
        };
        let pages = pages
            .ok_or_else(|| Error::OutOfMemory { what: "the KV cache".to_owned(), needed: shape.bytes() })?;
        let layout = |&KvHeads { num_kv_heads, head_dim }: &KvHeads| PageLayout {
            num_kv_heads,
            page_size: shape.page_size,
            head_dim,
        };
        let layouts = shape.layers.iter().map(layout).collect();
        Ok(Self { layouts, pages, partials: Mutex::new(vec![0.0; partials]) })
    }

    /// How a layer's pages lie.
    pub(crate) fn layout(&self, kv_layer: usize) -> PageLayout {
        self.layouts[kv_layer]
    }
}
