//! f32 values on the device, and their copies in f16 for matrix units.

use std::sync::{Arc, OnceLock};

use model::{BufferRole, Result};

use crate::buffer::DeviceBuffer;
use crate::device::{Capabilities, Gpu};
use crate::product::{MAX_HALF_COLS, padded_rows};
use crate::recorder::Recorder;

/// f32 values, `[rows, cols]`, and space for whole tiles of rows.
pub struct GpuBuffer {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) values: DeviceBuffer,
    twin: Twin,
    half: OnceLock<Half>,
}

/// Whether a buffer's values are there in f16 as well, which is what matrix units multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twin {
    /// Never: nobody multiplies the values on matrix units.
    None,
    /// From the beginning, on a device with matrix units. Whoever writes the values writes the twin.
    Written,
    /// From when the values are first multiplied: they came from the host and do not change.
    OnDemand,
}

impl Twin {
    /// That of a buffer of `cols` columns that kernels write. Wider rows than [`MAX_HALF_COLS`] are not multiplied on matrix
    /// units.
    pub fn of(role: BufferRole, cols: usize) -> Self {
        match role {
            BufferRole::MatmulInput if cols <= MAX_HALF_COLS => Self::Written,
            BufferRole::Values | BufferRole::MatmulInput | BufferRole::Part => Self::None,
        }
    }

    /// Whether a buffer is made with the copy.
    fn is_made(self, capabilities: Capabilities) -> bool {
        self == Self::Written && capabilities.has_matrix_units()
    }
}

/// A buffer's values as f16, `[rows, stride]` of words that hold two each.
pub(crate) struct Half {
    pub values: DeviceBuffer,
    pub stride: usize,
}

impl GpuBuffer {
    /// A buffer of zeros. `what` names it in errors.
    ///
    /// # Errors
    /// When it is larger than a binding may be, or the device has no memory left for it.
    pub(crate) fn new(
        gpu: &Gpu,
        recorder: &Arc<Recorder>,
        (rows, cols): (usize, usize),
        what: &str,
        twin: Twin,
    ) -> Result<Self> {
        let values = DeviceBuffer::new(gpu, recorder, what, values_bytes(rows, cols))?;
        let half = match twin.is_made(gpu.capabilities()) {
            true => OnceLock::from(Half::new(gpu, recorder, (rows, cols))?),
            false => OnceLock::new(),
        };
        Ok(Self { rows, cols, values, twin, half })
    }

    /// Bytes on the device of a buffer as [`new`](Self::new) makes it.
    pub(crate) fn bytes(capabilities: Capabilities, rows: usize, cols: usize, twin: Twin) -> u64 {
        let half = match twin.is_made(capabilities) {
            true => DeviceBuffer::rounded(half_bytes(rows, cols)),
            false => 0,
        };
        Self::values_bytes(rows, cols) + half
    }

    /// Bytes on the device of the f32 values alone.
    pub(crate) fn values_bytes(rows: usize, cols: usize) -> u64 {
        DeviceBuffer::rounded(values_bytes(rows, cols))
    }

    /// The f16 copy, which whoever writes the values must write too.
    pub(crate) fn half(&self) -> Option<&Half> {
        self.half.get()
    }

    /// The f16 copy of what came from the host, made by `make` when it is first asked for.
    ///
    /// # Panics
    /// When the values did not come from the host and the buffer was made without a copy.
    pub(crate) fn half_or_make(&self, make: impl FnOnce() -> Half) -> &Half {
        self.half.get_or_init(|| {
            assert_eq!(self.twin, Twin::OnDemand, "a buffer of {} columns has no f16 copy", self.cols);
            make()
        })
    }

    /// # Panics
    /// When the buffer has fewer rows.
    pub(crate) fn check_rows(&self, rows: usize) {
        assert!(rows <= self.rows, "buffer holds {} rows, expected at least {rows}", self.rows);
    }
}

impl Half {
    /// A copy of zeros for a buffer of `rows x cols`.
    ///
    /// # Errors
    /// As of [`GpuBuffer::new`].
    pub fn new(gpu: &Gpu, recorder: &Arc<Recorder>, (rows, cols): (usize, usize)) -> Result<Self> {
        let values = DeviceBuffer::new(gpu, recorder, "activations in f16", half_bytes(rows, cols))?;
        Ok(Self { values, stride: half_stride(cols) })
    }
}

fn values_bytes(rows: usize, cols: usize) -> u64 {
    (padded_rows(rows) * cols * 4) as u64
}

/// Words of a row of the f16 copy: whole tiles of columns.
fn half_stride(cols: usize) -> usize {
    cols.next_multiple_of(64) / 2
}

fn half_bytes(rows: usize, cols: usize) -> u64 {
    (padded_rows(rows) * half_stride(cols) * 4) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_in_f16_takes_half_of_the_values_where_there_are_matrix_units() {
        let plain = Capabilities {
            matrix_tile: None,
            subgroup_size: Some(32),
            f16: true,
            max_binding_bytes: 1 << 30,
            max_workgroup_bytes: 1 << 16,
        };
        let units = Capabilities { matrix_tile: Some(16), ..plain };
        let values = 512 * 4096 * 4;
        let bytes = |capabilities, twin| GpuBuffer::bytes(capabilities, 512, 4096, twin);
        assert_eq!(bytes(plain, Twin::Written), values);
        assert_eq!(bytes(units, Twin::Written), values + values / 2);
        assert_eq!([Twin::None, Twin::OnDemand].map(|twin| bytes(units, twin)), [values; 2]);
        let input = |cols| Twin::of(BufferRole::MatmulInput, cols);
        assert_eq!([4096, MAX_HALF_COLS + 1].map(input), [Twin::Written, Twin::None]);
        assert_eq!(Twin::of(BufferRole::Values, 4096), Twin::None);
    }
}
