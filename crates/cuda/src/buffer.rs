//! f32 values on the card, and their copies in f16 for tensor cores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use model::{BufferRole, Result};

use crate::driver::{Context, Memory};

/// Columns that a row of the f16 copy is padded to: what a kernel multiplies at a time.
const CHUNK: usize = 128;

/// f32 values, `[rows, cols]`.
pub struct CudaBuffer {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    values: Memory,
    half: OnceLock<Memory>,
    /// Whether the f16 copy is that of the values.
    is_half_current: AtomicBool,
}

impl CudaBuffer {
    /// Zeros. `what` names them in errors.
    pub(crate) fn new(
        context: &Arc<Context>,
        (rows, cols): (usize, usize),
        what: &str,
        role: BufferRole,
    ) -> Result<Self> {
        let values = Memory::new(context, what, values_bytes(rows, cols))?;
        let half = match role {
            BufferRole::MatmulInput => OnceLock::from(Memory::new(context, what, half_bytes(rows, cols))?),
            BufferRole::Values => OnceLock::new(),
        };
        Ok(Self { rows, cols, values, half, is_half_current: AtomicBool::new(false) })
    }

    /// Bytes on the card.
    pub(crate) fn bytes(rows: usize, cols: usize, role: BufferRole) -> u64 {
        let half = match role {
            BufferRole::MatmulInput => Memory::rounded(half_bytes(rows, cols)),
            BufferRole::Values => 0,
        };
        Memory::rounded(values_bytes(rows, cols)).saturating_add(half)
    }

    /// Writes all values.
    ///
    /// # Panics
    /// When there are not as many.
    pub(crate) fn fill(&self, values: &[f32]) -> Result<()> {
        assert_eq!(values.len(), self.rows * self.cols, "upload: values");
        self.values.write(0, bytemuck::cast_slice(values))
    }

    /// The memory of the values.
    pub(crate) fn memory(&self) -> &Memory {
        &self.values
    }

    /// The address of values that are read only.
    pub(crate) fn read(&self) -> u64 {
        self.values.address()
    }

    /// The address of values that are written, without their f16 copy.
    pub(crate) fn write(&self) -> u64 {
        self.is_half_current.store(false, Ordering::Relaxed);
        self.values.address()
    }

    /// The addresses of values that are written together with their f16 copy, which is null if there is none.
    pub(crate) fn write_both(&self) -> (u64, u64) {
        self.is_half_current.store(true, Ordering::Relaxed);
        (self.values.address(), self.half.get().map_or(0, Memory::address))
    }

    /// The address of the f16 copy, which `copy(values, copy)` makes if it is not current.
    pub(crate) fn half(&self, context: &Arc<Context>, copy: impl FnOnce(u64, u64)) -> u64 {
        let mut is_current = self.is_half_current.load(Ordering::Relaxed);
        let half = self.half.get_or_init(|| {
            is_current = false;
            let bytes = half_bytes(self.rows, self.cols);
            Memory::new(context, "activations in f16", bytes).expect("inputs from the host are small")
        });
        if !is_current {
            copy(self.values.address(), half.address());
            self.is_half_current.store(true, Ordering::Relaxed);
        }
        half.address()
    }

    /// Elements of a row of the f16 copy.
    pub(crate) fn half_stride(&self) -> usize {
        half_stride(self.cols)
    }

    /// # Panics
    /// When the buffer has fewer rows.
    pub(crate) fn check_rows(&self, rows: usize) {
        assert!(rows <= self.rows, "buffer holds {} rows, expected at least {rows}", self.rows);
    }
}

fn values_bytes(rows: usize, cols: usize) -> u64 {
    (rows as u64).saturating_mul(cols as u64).saturating_mul(4)
}

fn half_stride(cols: usize) -> usize {
    cols.next_multiple_of(CHUNK)
}

fn half_bytes(rows: usize, cols: usize) -> u64 {
    (rows as u64).saturating_mul(half_stride(cols) as u64).saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_products_have_a_copy_in_f16() {
        let bytes = |role| CudaBuffer::bytes(512, 4096, role);
        assert_eq!(bytes(BufferRole::Values), 512 * 4096 * 4);
        assert_eq!(bytes(BufferRole::MatmulInput), 512 * 4096 * 6);
        assert_eq!(CudaBuffer::bytes(1, 130, BufferRole::MatmulInput), 1024 + 512);
    }
}
