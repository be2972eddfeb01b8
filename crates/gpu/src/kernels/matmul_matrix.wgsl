// What both products on matrix units are made of: the output, the numbers of a product, and tiles of f16 in workgroup
// memory.
//@include values_f16
//@include ${FORMAT}
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
//@if BIAS
@group(0) @binding(${BIAS}) var<storage, read> bias: array<f32>;
//@end

struct Immediates {
    chunks: u32,         // of 64 columns
    supers: u32,         // of 256 columns
    segment: u32,        // chunks of a segment
    row_tiles: u32,      // of this slice
    rows: u32,           // of this slice
    tokens: u32,
    x_stride: u32,       // in what x is an array of
    out_stride: u32,
    out_first: u32,      // the slice's first column of out
}
var<immediate> imm: Immediates;

// A tile has rows of 64 columns, padded so that the rows of a matrix fall into different banks. Devices whose matrix units
// load from vectors get vectors, for the sake of wide stores.
//@if VECTORS
alias Quad = vec4<f16>;
const QUADS_PER_ROW = 18u;
const ROW_STRIDE = 18u;
const MATRIX_STEP = 4u;
const QUAD_STEP = 1u;
//@else
const QUADS_PER_ROW = 18u;
const ROW_STRIDE = 72u;
const MATRIX_STEP = 16u;
const QUAD_STEP = 4u;
//@end
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
// From one matrix to the next in a row of inputs in the device's memory.
//@if X_SCALARS
const X_STEP = 16u;
//@else
const X_STEP = 4u;
//@end

// Rows of weights that a workgroup holds: 16 for each of its eight subgroups.
//@if VECTORS
var<workgroup> weights: array<Quad, 128u * QUADS_PER_ROW>;
//@else
var<workgroup> weights: array<f16, 128u * ROW_STRIDE>;
//@end

fn put_weight(quad: u32, value: vec4<f16>) {
    //@if VECTORS
    weights[quad] = value;
    //@else
    weights[quad * 4u] = value.x;
    weights[quad * 4u + 1u] = value.y;
    weights[quad * 4u + 2u] = value.z;
    weights[quad * 4u + 3u] = value.w;
    //@end
}
