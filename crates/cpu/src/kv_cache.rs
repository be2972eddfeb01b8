//! Paged K and V of all layers.

use std::sync::Mutex;

use model::{Error, KvDtype, KvShape, Result};

use crate::kernels::{KvElement, KvRows, MAX_HEAD_DIM};

/// The paged KV cache. A layer's K (and V) is `[pages, num_kv_heads, page_size, head_dim]`.
pub struct CpuKvCache {
    pub(crate) shape: KvShape,
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
            (0..shape.num_layers)
                .map(|_| {
                    // Asks first, since `vec!` aborts on failure; the zeroed allocation then is the same size.
                    Vec::<E>::new().try_reserve_exact(shape.elements_per_layer()).ok()?;
                    Some(vec![E::default(); shape.elements_per_layer()])
                })
                .collect()
        };
        Some(Self { k: layers()?, v: layers()? })
    }
}

impl CpuKvCache {
    /// A cache of zeros, with scratch for so many floats of partial results.
    pub(crate) fn new(shape: KvShape, partials: usize) -> Result<Self> {
        if shape.head_dim > MAX_HEAD_DIM {
            return Err(Error::InvalidValue {
                what: "head dimension".to_owned(),
                expected: format!("at most {MAX_HEAD_DIM} on the CPU"),
                found: shape.head_dim.to_string(),
            });
        }
        let pages = match shape.dtype {
            KvDtype::F16 => LayerPages::new(&shape).map(Pages::F16),
            KvDtype::F32 => LayerPages::new(&shape).map(Pages::F32),
        };
        let pages = pages
            .ok_or_else(|| Error::OutOfMemory { what: "the KV cache".to_owned(), needed: shape.bytes() })?;
        Ok(Self { shape, pages, partials: Mutex::new(vec![0.0; partials]) })
    }

    /// The view of one head's rows that kernels read.
    pub(crate) fn rows<'a, E>(
        &self,
        layer: &'a [E],
        block_table: &'a [u32],
        kv_head: usize,
    ) -> KvRows<'a, E> {
        KvRows { layer, block_table, shape: self.shape, kv_head }
    }
}
