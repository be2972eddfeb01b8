//! Every block format on the device against the file reader's scalar dequantisation, over ragged shapes.

use gguf::Format;
use model::Backend;
use pack::{TILE_COLS, TILE_ROWS, pack, planes_of};
use testkit::{Rng, random_blocks};

use super::{TestDevice, read};
use crate::kernel::KernelSpec;
use crate::planes::{define, kernel_part};

/// What weights become in a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Values {
    F32,
    F16,
}

/// Half a digit of f16, relatively: the error of one rounding.
const F16_ROUNDING: f32 = 1.0 / 2048.0;
/// Half of the least f16.
const F16_HALF_LEAST: f32 = 1.0 / 33_554_432.0;

/// All values of a matrix as the device has them: `[pad16(rows), pad64(cols)]`.
fn on_device(device: &TestDevice, format: Format, values: Values, bytes: &[u8], cols: usize) -> Vec<f32> {
    let packed = pack(format, bytes, cols);
    let rows = bytes.len() / format.bytes_for(cols as u64).unwrap() as usize;
    let (row_tiles, chunks) = (rows.div_ceil(TILE_ROWS), cols.div_ceil(TILE_COLS));
    let mut spec = KernelSpec::new("dequantize")
        .with("FORMAT", kernel_part(format))
        .with("OUT", packed.len())
        .with_flag("F16", values == Values::F16);
    for (binding, plane) in planes_of(format).iter().enumerate() {
        spec = spec.with(define(plane.role), binding);
    }
    let planes: Vec<_> = packed.iter().map(|(_, words)| device.upload(bytemuck::cast_slice(words))).collect();
    let len = row_tiles * TILE_ROWS * chunks * TILE_COLS;
    // What the kernel leaves out is not a number.
    let (rows, cols) = (row_tiles * TILE_ROWS, chunks * TILE_COLS);
    let out = device.0.upload(rows, cols, &vec![f32::NAN; len]).expect("small buffers fit");
    let buffers: Vec<_> = planes.iter().chain([&out.values]).collect();
    device.run(&device.kernel(&spec), &buffers, &[], [chunks as u32, row_tiles as u32, 1]);
    read(&device.0, &out, len)
}

/// What the weights would be if all quants were zero: the minima of formats that have them, and else zero.
fn minima(format: Format, bytes: &[u8], len: usize) -> Vec<f32> {
    let quants = match format {
        Format::Q4_1 => 4..20,
        Format::Q5_1 => 4..24,
        Format::Q2_K => 16..80,
        Format::Q4_K => 16..144,
        Format::Q5_K => 16..176,
        _ => return vec![0.0; len],
    };
    let mut bytes = bytes.to_vec();
    bytes.chunks_exact_mut(format.block_bytes()).for_each(|block| block[quants.clone()].fill(0));
    let mut minima = vec![0.0; len];
    format.dequantize(&bytes, &mut minima);
    minima
}

fn check(device: &TestDevice, format: Format, values: Values, rows: usize, cols: usize) {
    let what = format!("{format} as {values:?}, {rows} x {cols}");
    let bytes = random_blocks(format, rows * cols, 0.3, &mut Rng::new(3));
    let mut expected = vec![0.0; rows * cols];
    format.dequantize(&bytes, &mut expected);
    let minima = minima(format, &bytes, rows * cols);
    let got = on_device(device, format, values, &bytes, cols);
    let stride = cols.next_multiple_of(TILE_COLS);
    for (idx, &got) in got.iter().enumerate() {
        let (row, col) = (idx / stride, idx % stride);
        if row >= rows || col >= cols {
            assert_eq!(got, 0.0, "{what}: padding at row {row}, column {col}");
            continue;
        }
        let value = expected[row * cols + col];
        match values {
            Values::F32 => assert_eq!(got, value, "{what}: row {row}, column {col}"),
            Values::F16 => {
                // The scale, its product with the quant (a fused multiply-add need not be fused), the minimum and the
                // sum are each rounded once; in the least numbers the scale's error is multiplied by a quant below 256.
                let min = minima[row * cols + col];
                let scaled = value - min;
                let terms = 2.0 * scaled.abs() + min.abs() + value.abs();
                let bound = F16_ROUNDING * terms + 256.0 * F16_HALF_LEAST;
                assert!(
                    (got - value).abs() <= bound,
                    "{what}: row {row}, column {col}: {got} for {value} = {scaled} + {min}"
                );
            }
        }
    }
}

fn check_all(values: Values) {
    let device = TestDevice::open();
    for format in Format::ALL {
        let lens: &[usize] = match format.block_len() {
            1 => &[1, 7, 64, 100, 320],
            32 => &[32, 64, 96, 288],
            _ => &[256, 512, 768],
        };
        for &cols in lens {
            for rows in [1, 16, 21] {
                check(&device, format, values, rows, cols);
            }
        }
    }
}

#[test]
fn values_as_f32_are_those_of_the_file_reader_to_the_bit() {
    check_all(Values::F32);
}

#[test]
fn values_as_f16_are_within_its_rounding() {
    check_all(Values::F16);
}
