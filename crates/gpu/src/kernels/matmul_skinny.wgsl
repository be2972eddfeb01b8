//@include enables
// out = weight * x + bias on matrix units, for up to ${TOKEN_TILES} * 16 tokens. Its time goes into
// reading the weights.
//
// The columns are cut into eight segments of equal length, which is what all matrix-unit products of a matrix share: an
// element is the sum, in order, of eight chains, each over the columns of a segment in steps of 16. Here a subgroup takes
// a segment, for ${ROW_TILES} tiles of 16 rows, and the chains are added in workgroup memory.
//@include matmul_matrix
// f16 of x / 16, [tokens rounded up][x_stride]. With STAGED, the rows of the tile that hold tokens are staged in workgroup
// memory; the other rows are multiplied as well, whatever they hold, and not written. Without, inputs are read where they
// are needed.
//@if X_SCALARS
@group(0) @binding(0) var<storage, read> x: array<f16>;
//@else
@group(0) @binding(0) var<storage, read> x: array<vec4<f16>>;
//@end
//@if STAGED
// A subgroup's tokens; the rest of its matrix of 16 rows is whatever follows.
const INPUT_ROWS = 2u * ${STAGED}u;
const INPUT_ROWS_HELD = 7u * INPUT_ROWS + 16u;
//@include matmul_inputs
//@end
// [segment][token][row]
var<workgroup> partial: array<f32, 8u * 256u>;

fn load_tile(tile: u32, chunk: u32, block: u32) -> Raw {
    return load_raw(tile * imm.chunks + chunk, block, (tile * imm.supers + chunk / 4u) * 16u + block / 2u);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) segment: u32,
    @builtin(subgroup_invocation_id) block: u32,
) {
    setup(lane);
    workgroupBarrier();
    let row = block / 2u;
    let weight_base = segment * 16u * QUADS_PER_ROW;
    let weight_put = weight_base + row * QUADS_PER_ROW + (block % 2u) * 8u;
    let first_token = group.y * 16u * ${TOKEN_TILES}u;
    let pieces = min(imm.tokens - group.y * 16u * ${TOKEN_TILES}u, 16u * ${TOKEN_TILES}u) * 16u;
    let first_tile = group.x * ${ROW_TILES}u;
    //@for n in ${ROW_TILES}
    // A workgroup past the last tile repeats it.
    let tile${n} = min(first_tile + ${n}u, imm.row_tiles - 1u);
    //@for m in ${TOKEN_TILES}
    var sums${n}_${m} = Sums();
    //@end
    //@end
    let first_chunk = segment * imm.segment;
    let end_chunk = min(first_chunk + imm.segment, imm.chunks);
    let last = imm.chunks - 1u;
    // The reading of weights is ${AHEAD} rounds ahead of their use, that of inputs one.
    //@for d in ${AHEAD}
    //@for n in ${ROW_TILES}
    var raw${d}_${n} = load_tile(tile${n}, min(first_chunk + ${d}u, last), block);
    //@end
    //@end
    //@if STAGED
    let input_base = segment * INPUT_ROWS * QUADS_PER_ROW;
    let input_put = input_base + (block / 16u) * QUADS_PER_ROW + block % 16u;
    let input_from = (first_token + block / 16u) * imm.x_stride + block % 16u;
    //@for q in ${STAGED}
    var input${q} = x[input_from + ${q}u * 2u * imm.x_stride + min(first_chunk, last) * 16u];
    //@end
    //@end
    // Every subgroup goes round as often, as matrix operations demand; past its columns it multiplies with zeros.
    for (var i = 0u; i < imm.segment; i += ${AHEAD}u) {
        //@for d in ${AHEAD}
        {
            let chunk = first_chunk + i + ${d}u;
            let is_past = chunk >= end_chunk;
            //@if STAGED
            //@for q in ${STAGED}
            put_input(input_put + ${q}u * 2u * QUADS_PER_ROW, input${q});
            input${q} = x[input_from + ${q}u * 2u * imm.x_stride + min(chunk + 1u, last) * 16u];
            //@end
            //@else
            //@for m in ${TOKEN_TILES}
            //@for k in 4
            let left${m}_${k} = coopLoadT<Left>(&x[(first_token + ${m}u * 16u) * imm.x_stride + (4u * min(chunk, last) + ${k}u) * X_STEP], imm.x_stride);
            //@end
            //@end
            //@end
            //@for n in ${ROW_TILES}
            {
                let scale = scale_of(raw${d}_${n});
                //@for i in 8
                put_weight(weight_put + ${i}u, values${i}(raw${d}_${n}, scale));
                //@end
                if is_past {
                    for (var quad = 0u; quad < 8u; quad++) {
                        put_weight(weight_put + quad, vec4<f16>(0.0h));
                    }
                }
                raw${d}_${n} = load_tile(tile${n}, min(chunk + ${AHEAD}u, last), block);
                subgroupBarrier();
                //@for k in 4
                {
                    let right = coopLoad<Right>(&weights[QUAD_STEP * weight_base + MATRIX_STEP * ${k}u], ROW_STRIDE);
                    //@for m in ${TOKEN_TILES}
                    //@if STAGED
                    let left${m}_${k} = coopLoadT<Left>(&inputs[QUAD_STEP * input_base + MATRIX_STEP * ${k}u], ROW_STRIDE);
                    //@end
                    sums${n}_${m} = coopMultiplyAdd(left${m}_${k}, right, sums${n}_${m});
                    //@end
                }
                //@end
                subgroupBarrier();
            }
            //@end
        }
        //@end
    }
    //@for n in ${ROW_TILES}
    //@for m in ${TOKEN_TILES}
    {
        coopStoreT(sums${n}_${m}, &partial[segment * 256u], 16u);
        workgroupBarrier();
        var total = 0.0;
        for (var i = 0u; i < 8u; i++) {
            total += partial[i * 256u + lane];
        }
        let token = ${m}u * 16u + lane / 16u;
        let out_row = (first_tile + ${n}u) * 16u + lane % 16u;
        if out_row < imm.rows && token * 16u < pieces {
            total *= 16.0;
            //@if BIAS
            total += bias[imm.out_first + out_row];
            //@end
            out[(first_token + token) * imm.out_stride + imm.out_first + out_row] = total;
        }
        workgroupBarrier();
    }
    //@end
    //@end
}
