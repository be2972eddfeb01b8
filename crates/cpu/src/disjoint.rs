//! One buffer written by many threads, each in places of its own.

use std::marker::PhantomData;

/// A mutable slice whose disjoint parts may be taken by several threads at once.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out `&mut [T]` to parts that the callers of `slice` promise to be disjoint.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// `len` elements from `start` on.
    ///
    /// # Safety
    /// No two slices that are alive at once may overlap.
    #[allow(clippy::mut_from_ref)] // What the type is for; the obligation is the caller's.
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "slice out of range");
        // SAFETY: in range by the assertion, exclusive by the caller's promise, alive as long as the borrow in `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
