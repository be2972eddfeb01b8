// The index of each row's highest value, of equal ones the first; NaN counts as minus infinity, and plus infinity as the
// greatest number. A row without any value above minus infinity has the index 0xffffffff.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

struct Immediates {
    cols: u32,
}
var<immediate> imm: Immediates;

const NONE = 0xffffffffu;
const GREATEST = 3.4028234663852886e38;

var<workgroup> values: array<f32, 256>;
var<workgroup> indices: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * imm.cols;
    // Comparisons with NaN are false, so it never is the best; nor is minus infinity, below the start.
    var best = -GREATEST;
    var index = NONE;
    // Eight loads are under way at a time. A lane looks at its last column again where it has no more.
    for (var col = lane; col < imm.cols; col += 2048u) {
        //@for i in 8
        let col${i} = select(col, col + 256u * ${i}u, col + 256u * ${i}u < imm.cols);
        let value${i} = min(x[first + col${i}], GREATEST);
        //@end
        //@for i in 8
        if value${i} > best || (value${i} == best && index == NONE) {
            best = value${i};
            index = col${i};
        }
        //@end
    }
    values[lane] = best;
    indices[lane] = index;
    for (var step = 128u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            let value = values[lane + step];
            let other = indices[lane + step];
            if value > values[lane] || (value == values[lane] && other < indices[lane]) {
                values[lane] = value;
                indices[lane] = other;
            }
        }
    }
    if lane == 0u {
        out[group.x] = indices[0];
    }
}
