//@include enables
// out = weight * x + bias on matrix units, for many tokens. Its time goes into arithmetic.
//
// A workgroup makes a tile of 128 tokens x 128 rows, a subgroup 64 x 32 of it. The order of additions is that of
// `matmul_skinny`: eight segments of columns, each a chain in steps of 16, added in order.
//@include matmul_matrix
//@include matmul_inputs
// f16 of x / 16, [tokens rounded up to 128][x_stride]
@group(0) @binding(0) var<storage, read> x: array<vec4<f16>>;
const INPUT_ROWS_HELD = 128u;
// A tile of each subgroup on its way out.
var<workgroup> staged: array<f32, 8u * 256u>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane_of_subgroup: u32,
) {
    setup(lane);
    let block = lane % 32u;
    let row = block / 2u;
    let first_token = group.y * 128u;
    let tile = min(group.x * 8u + lane / 32u, imm.row_tiles - 1u);
    let weight_put = ((lane / 32u) * 16u + row) * QUADS_PER_ROW + (block % 2u) * 8u;
    // A lane brings eight vectors of inputs, 16 rows apart.
    let input_row = lane / 16u;
    let input_from = (first_token + input_row) * imm.x_stride + lane % 16u;
    let input_put = input_row * QUADS_PER_ROW + lane % 16u;
    let token_base = (subgroup / 4u) * 64u * QUADS_PER_ROW;
    let row_base = (subgroup % 4u) * 32u * QUADS_PER_ROW;
    //@for m in 4
    //@for n in 2
    var total${m}_${n} = Sums();
    var sums${m}_${n} = Sums();
    //@end
    //@end

    var raw = load_raw(tile * imm.chunks, block, tile * imm.supers * 16u + row);
    //@for i in 8
    var input${i} = x[input_from + ${i}u * 16u * imm.x_stride];
    //@end
    var segment_end = imm.segment;
    for (var chunk = 0u; chunk < imm.chunks; chunk++) {
        if chunk == segment_end {
            //@for m in 4
            //@for n in 2
            total${m}_${n} = total${m}_${n} + sums${m}_${n};
            sums${m}_${n} = Sums();
            //@end
            //@end
            segment_end += imm.segment;
        }
        workgroupBarrier();
        let scale = scale_of(raw);
        //@for i in 8
        put_weight(weight_put + ${i}u, values${i}(raw, scale));
        //@end
        //@for i in 8
        put_input(input_put + ${i}u * 16u * QUADS_PER_ROW, input${i});
        //@end
        workgroupBarrier();
        let next = min(chunk + 1u, imm.chunks - 1u);
        raw = load_raw(tile * imm.chunks + next, block, (tile * imm.supers + next / 4u) * 16u + row);
        //@for i in 8
        input${i} = x[input_from + ${i}u * 16u * imm.x_stride + next * 16u];
        //@end
        //@for k in 4
        {
            //@for n in 2
            let right${n} = coopLoad<Right>(&weights[QUAD_STEP * (row_base + ${n}u * 16u * QUADS_PER_ROW) + MATRIX_STEP * ${k}u], ROW_STRIDE);
            //@end
            //@for m in 4
            let left${m} = coopLoadT<Left>(&inputs[QUAD_STEP * (token_base + ${m}u * 16u * QUADS_PER_ROW) + MATRIX_STEP * ${k}u], ROW_STRIDE);
            //@for n in 2
            sums${m}_${n} = coopMultiplyAdd(left${m}, right${n}, sums${m}_${n});
            //@end
            //@end
        }
        //@end
    }
    //@for m in 4
    //@for n in 2
    {
        // The sums of segments without columns are zero; adding them changes no bit but a zero's sign.
        total${m}_${n} = total${m}_${n} + sums${m}_${n};
        coopStoreT(total${m}_${n}, &staged[subgroup * 256u], 16u);
        subgroupBarrier();
        for (var i = 0u; i < 8u; i++) {
            let element = i * 32u + lane_of_subgroup;
            let token = (subgroup / 4u) * 64u + ${m}u * 16u + element / 16u;
            let out_row = group.x * 128u + (subgroup % 4u) * 32u + ${n}u * 16u + element % 16u;
            if out_row < imm.rows && group.y * 128u + token < imm.tokens {
                var value = staged[subgroup * 256u + element] * 16.0;
                //@if BIAS
                value += bias[imm.out_first + out_row];
                //@end
                out[(first_token + token) * imm.out_stride + imm.out_first + out_row] = value;
            }
        }
        subgroupBarrier();
    }
    //@end
    //@end
}
