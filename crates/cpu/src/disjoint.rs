//! One buffer that many threads write, each its own elements.

use std::marker::PhantomData;

/// A mutable slice of which several threads may take disjoint slices at once.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out `&mut [T]` that the callers of `slice` and `columns` promise to be disjoint.
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

/// Some columns of each of several rows, held exclusively.
pub(crate) struct Columns<'a, T> {
    start: *mut T,
    rows: usize,
    /// Elements from a row's columns to the next row's.
    stride: usize,
    width: usize,
    slice: PhantomData<&'a mut [T]>,
}

impl<'a, T> Columns<'a, T> {
    /// All columns of rows of `width`.
    pub fn of(values: &'a mut [T], width: usize) -> Self {
        let (start, rows) = (values.as_mut_ptr(), values.len() / width);
        Self { start, rows, stride: width, width, slice: PhantomData }
    }

    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row out of range");
        // SAFETY: `of` and `Disjoint::columns` checked that the rows are in range. Nobody else has them: `of` borrows the
        // slice, and the caller of `columns` promised it. The borrow of `self` lets only one row be used at a time.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }
}

impl<T> Disjoint<'_, T> {
    /// `width` columns from element `start` on, and those of the `rows - 1` rows that follow it at `stride`.
    ///
    /// # Safety
    /// As of [`slice`](Self::slice), for each of the rows.
    pub unsafe fn columns(&self, start: usize, rows: usize, stride: usize, width: usize) -> Columns<'_, T> {
        let end = rows
            .checked_sub(1)
            .and_then(|last| last.checked_mul(stride)?.checked_add(start)?.checked_add(width));
        assert!(end.is_some_and(|end| end <= self.len), "columns out of range");
        // SAFETY: in range by the assertion.
        Columns { start: unsafe { self.start.add(start) }, rows, stride, width, slice: PhantomData }
    }
}
