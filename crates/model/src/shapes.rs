//! The shapes of queries, keys and values: of a stacked row, and of the paged cache.

/// The element type of cached K and V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvDtype {
    /// 16-bit IEEE: half the memory and bandwidth.
    #[default]
    F16,
    /// 32-bit IEEE: exact.
    F32,
}

impl KvDtype {
    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            KvDtype::F16 => 2,
            KvDtype::F32 => 4,
        }
    }
}

/// The paged KV cache of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvShape {
    /// Pages of a layer.
    pub num_pages: usize,
    /// Tokens of a page.
    pub page_size: usize,
    /// Element type.
    pub dtype: KvDtype,
    /// The layers that store keys and values, each with pages of its own.
    pub layers: Vec<KvHeads>,
}

/// Keys, and as many values, of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvHeads {
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl KvShape {
    /// Elements of K (as many of V) in one layer.
    pub fn layer_elements(&self, heads: KvHeads) -> usize {
        self.num_pages * self.page_size * heads.num_kv_heads * heads.head_dim
    }

    /// Bytes of K (as many of V) in one layer; at most `u64::MAX`.
    pub fn layer_bytes(&self, heads: KvHeads) -> u64 {
        let slots = (self.num_pages as u64).saturating_mul(self.page_size as u64);
        let elements = (heads.num_kv_heads as u64).saturating_mul(heads.head_dim as u64);
        slots.saturating_mul(elements).saturating_mul(self.dtype.bytes() as u64)
    }

    /// Bytes of K and V over all layers; at most `u64::MAX`.
    pub fn bytes(&self) -> u64 {
        let of_layer = |&heads: &KvHeads| self.layer_bytes(heads).saturating_mul(2);
        self.layers.iter().map(of_layer).fold(0, u64::saturating_add)
    }
}

/// The stacked row that the QKV projection writes: `[q: num_heads * head_dim | k: num_kv_heads * head_dim | v: ..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QkvShape {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl QkvShape {
    /// Width of the stacked row.
    pub fn cols(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Width of the queries, and of the attention's output.
    pub fn q_cols(&self) -> usize {
        self.num_heads * self.head_dim
    }
}
