//! What each slot of a model has cached.

/// The state of a model's cache slots, one sequence each.
#[derive(Debug, Clone)]
pub struct KvCache {
    cached_tokens: Vec<usize>,
    memory_bytes: u64,
}

impl KvCache {
    pub(crate) fn new(num_slots: usize, memory_bytes: u64) -> Self {
        Self { cached_tokens: vec![0; num_slots], memory_bytes }
    }

    /// Empties every slot.
    pub fn clear(&mut self) {
        self.cached_tokens.fill(0);
    }

    /// Empties one slot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn clear_batch(&mut self, slot: usize) {
        self.set(slot, 0);
    }

    /// Tokens cached in a slot: the position at which its sequence continues.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn cached_tokens(&self, slot: usize) -> usize {
        assert!(slot < self.cached_tokens.len(), "slot {slot} of a batch of {}", self.cached_tokens.len());
        self.cached_tokens[slot]
    }

    /// Number of slots: the model's batch size.
    pub fn num_slots(&self) -> usize {
        self.cached_tokens.len()
    }

    /// Bytes reserved for K and V of all slots; proportional to the batch size.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub(crate) fn set(&mut self, slot: usize, tokens: usize) {
        assert!(slot < self.cached_tokens.len(), "slot {slot} of a batch of {}", self.cached_tokens.len());
        self.cached_tokens[slot] = tokens;
    }
}
