//@include enables
// out = weight * x + bias in f32 multiply-adds, for any device and any format.
//
// A workgroup multiplies a tile row (16 rows of the weight) with ${TOKENS} tokens. Lane l of 256 takes block l % 32 of
// every eighth chunk of 64 columns, from chunk l / 32 on, adds its products in order to four sums by column modulo 4, and
// adds those up; then sixteen lanes' sums of a row are added in order. None of that depends on the number of tokens.
//@include values_f32
//@include ${FORMAT}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
//@if BIAS
@group(0) @binding(${BIAS}) var<storage, read> bias: array<f32>;
//@end

struct Immediates {
    chunks: u32,       // of 64 columns
    supers: u32,       // of 256 columns
    cols: u32,
    rows: u32,         // of this slice
    x_stride: u32,
    out_stride: u32,
    out_first: u32,    // the slice's first column of out
}
var<immediate> imm: Immediates;

// [token][row of 16][lane of 16]
var<workgroup> sums: array<f32, ${TOKENS}u * 256u>;

// Past a row's end is another token's row, which may hold no numbers: weights of 0 there do not make products of 0.
//@if RAGGED
fn x_value(token: u32, col: u32) -> f32 {
    return select(0.0, x[token * imm.x_stride + min(col, imm.cols - 1u)], col < imm.cols);
}
//@else
fn x_value(token: u32, col: u32) -> f32 {
    return x[token * imm.x_stride + col];
}
//@end

fn x_values(token: u32, col: u32) -> vec4<f32> {
    return vec4<f32>(
        x_value(token, col), x_value(token, col + 1u), x_value(token, col + 2u), x_value(token, col + 3u)
    );
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    setup(lane);
    workgroupBarrier();
    let block = lane % 32u;
    let row = block / 2u;
    let first_token = group.y * ${TOKENS}u;
    //@for t in ${TOKENS}
    var sum${t} = vec4<f32>(0.0);
    //@end
    for (var chunk = lane / 32u; chunk < imm.chunks; chunk += 8u) {
        let col = chunk * 64u + (block % 2u) * 32u;
        if col >= imm.cols {
            continue;
        }
        let raw = load_raw(group.x * imm.chunks + chunk, block, (group.x * imm.supers + chunk / 4u) * 16u + row);
        let scale = scale_of(raw);
        //@for i in 8
        {
            let w = values${i}(raw, scale);
            //@for t in ${TOKENS}
            sum${t} = fma(w, x_values(first_token + ${t}u, col + 4u * ${i}u), sum${t});
            //@end
        }
        //@end
    }
    let lane_of_row = (lane / 32u) * 2u + block % 2u;
    //@for t in ${TOKENS}
    sums[${t}u * 256u + row * 16u + lane_of_row] = (sum${t}.x + sum${t}.y) + (sum${t}.z + sum${t}.w);
    //@end
    workgroupBarrier();
    if lane < ${TOKENS}u * 16u {
        let token = lane / 16u;
        let out_row = group.x * 16u + lane % 16u;
        if out_row < imm.rows {
            var total = 0.0;
            for (var i = 0u; i < 16u; i++) {
                total += sums[lane * 16u + i];
            }
            //@if BIAS
            total += bias[imm.out_first + out_row];
            //@end
            out[(first_token + token) * imm.out_stride + imm.out_first + out_row] = total;
        }
    }
}
