// The index of each row's highest value, of equal ones the first (`key` says how values compare). A row without any value above minus infinity has the index 0xffffffff.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

struct Immediates {
    cols: u32,
    first_row: u32,
}
var<immediate> imm: Immediates;

const NONE = 0xffffffffu;

var<workgroup> keys: array<u32, 256>;
var<workgroup> indices: array<u32, 256>;

//@include key

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = (imm.first_row + group.x) * imm.cols;
    // Minus infinity, which is no better.
    var best = ZERO - INFINITY;
    var index = NONE;
    // Eight loads are under way at a time. A lane looks at its last column again where it has no more.
    for (var col = lane; col < imm.cols; col += 2048u) {
        //@for i in 8
        let col${i} = select(col, col + 256u * ${i}u, col + 256u * ${i}u < imm.cols);
        let key${i} = key_of(x[first + col${i}]);
        //@end
        //@for i in 8
        if key${i} > best {
            best = key${i};
            index = col${i};
        }
        //@end
    }
    keys[lane] = best;
    indices[lane] = index;
    for (var step = 128u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            let key = keys[lane + step];
            let other = indices[lane + step];
            if key > keys[lane] || (key == keys[lane] && other < indices[lane]) {
                keys[lane] = key;
                indices[lane] = other;
            }
        }
    }
    if lane == 0u {
        out[group.x] = indices[0];
    }
}
