// Tiles of f16 in workgroup memory: rows of 64 columns, padded so that the rows of a matrix fall into different banks.
// Devices whose matrix units load from vectors get vectors, for the sake of wide stores.
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
