//! Large zeroed memory for weights.

use memmap2::MmapMut;

/// Zeroed bytes that begin on a page, in huge pages where the system has them: weights are read from end to end for every
/// step, and with small pages much of the time would go into finding them.
pub(crate) struct AlignedBytes {
    map: Option<MmapMut>,
}

impl AlignedBytes {
    /// `len` zero bytes, or `None` when they cannot be had.
    pub fn zeroed(len: usize) -> Option<Self> {
        if len == 0 {
            return Some(Self { map: None });
        }
        let map = MmapMut::map_anon(len).ok()?;
        // Only advice: without it the memory is as good, but slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(Self { map: Some(map) })
    }

    pub fn as_slice(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.map.as_deref_mut().unwrap_or_default()
    }
}
