// Inputs that a workgroup holds beside its weights: INPUT_ROWS_HELD rows.
//@if VECTORS
var<workgroup> inputs: array<Quad, INPUT_ROWS_HELD * QUADS_PER_ROW>;
//@else
var<workgroup> inputs: array<f16, INPUT_ROWS_HELD * ROW_STRIDE>;
//@end

fn put_input(quad: u32, value: vec4<f16>) {
    //@if VECTORS
    inputs[quad] = value;
    //@else
    inputs[quad * 4u] = value.x;
    inputs[quad * 4u + 1u] = value.y;
    inputs[quad * 4u + 2u] = value.z;
    inputs[quad * 4u + 3u] = value.w;
    //@end
}
