//! f32 values on the card, and their copies in f16 for tensor cores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use model::{BufferRole, Result};

use crate::driver::{Context, Memory, TokenMap};

/// Columns that a row of the f16 copy is padded to: what a kernel multiplies at a time.
const CHUNK: usize = 128;

/// How a row of the f16 copy lies (`activation_at` in `common.cuh`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfOrder {
    /// What a lane reads is together.
    ByLanes,
    /// What tensor cores read from shared memory is together: for the kernels of `wide.cuh`.
    BySteps,
}

/// The f16 copy, as a kernel takes it: its address, 0 if there is none, and its shape.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Half {
    pub address: u64,
    /// Elements of a row, and the order of its columns in the highest bit (`BY_STEPS`).
    pub shape: u32,
}

/// f32 values, `[rows, cols]`.
pub struct CudaBuffer {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    values: Memory,
    half: OnceLock<Memory>,
    /// Of the f16 copy, made when a kernel first takes it.
    map: OnceLock<TokenMap>,
    /// Whether the f16 copy is that of the values.
    is_half_current: AtomicBool,
    /// Whether it lies by steps.
    is_by_steps: AtomicBool,
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
            BufferRole::Values | BufferRole::Part => OnceLock::new(),
        };
        Ok(Self {
            rows,
            cols,
            values,
            half,
            map: OnceLock::new(),
            is_half_current: AtomicBool::new(false),
            is_by_steps: AtomicBool::new(false),
        })
    }

    /// Bytes on the card.
    pub(crate) fn bytes(rows: usize, cols: usize, role: BufferRole) -> u64 {
        let half = match role {
            BufferRole::MatmulInput => Memory::rounded(half_bytes(rows, cols)),
            BufferRole::Values | BufferRole::Part => 0,
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

    /// The address of values that are written together with their f16 copy, and the copy, in this order.
    pub(crate) fn write_both(&self, order: HalfOrder) -> Result<(u64, Half)> {
        if let Some(half) = self.half.get() {
            self.arrange(half, order)?;
        }
        self.is_half_current.store(true, Ordering::Relaxed);
        Ok((self.values.address(), self.half_as(order)))
    }

    /// The f16 copy, in this order or, without one, in any; `copy(values, copy)` makes it if it is not there.
    pub(crate) fn half(
        &self,
        context: &Arc<Context>,
        order: Option<HalfOrder>,
        copy: impl FnOnce(u64, Half),
    ) -> Result<Half> {
        let mut is_current = self.is_half_current.load(Ordering::Relaxed);
        if self.half.get().is_none() {
            is_current = false;
            let memory = Memory::new(context, "activations in f16", half_bytes(self.rows, self.cols))?;
            self.half.get_or_init(|| memory);
        }
        let order = order.unwrap_or(self.order());
        if !is_current || order != self.order() {
            self.arrange(self.half.get().expect("made above"), order)?;
            copy(self.values.address(), self.half_as(order));
            self.is_half_current.store(true, Ordering::Relaxed);
        }
        Ok(self.half_as(order))
    }

    /// How the copy engine reads the f16 copy, which must be there.
    pub(crate) fn map(&self) -> Result<&TokenMap> {
        if self.map.get().is_none() {
            let half = self.half.get().expect("a product's input has a copy in f16");
            let map = TokenMap::new(half, (self.rows, half_stride(self.cols)))?;
            self.map.get_or_init(|| map);
        }
        Ok(self.map.get().expect("made above"))
    }

    fn order(&self) -> HalfOrder {
        match self.is_by_steps.load(Ordering::Relaxed) {
            true => HalfOrder::BySteps,
            false => HalfOrder::ByLanes,
        }
    }

    /// Makes what will be written in this order be all that is not zero.
    fn arrange(&self, half: &Memory, order: HalfOrder) -> Result<()> {
        // Columns up to a whole chunk lie elsewhere in the other order.
        if order != self.order() && !self.cols.is_multiple_of(CHUNK) {
            half.clear()?;
        }
        self.is_by_steps.store(order == HalfOrder::BySteps, Ordering::Relaxed);
        Ok(())
    }

    fn half_as(&self, order: HalfOrder) -> Half {
        let by_steps = if order == HalfOrder::BySteps { 1 << 31 } else { 0 };
        let stride = u32::try_from(half_stride(self.cols)).expect("sizes fit 32 bits");
        Half { address: self.half.get().map_or(0, Memory::address), shape: stride | by_steps }
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
