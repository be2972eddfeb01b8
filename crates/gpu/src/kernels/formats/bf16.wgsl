// BF16: the upper halves of f32.
//@include formats/parts/sixteen_bits

fn quad(a: u32, b: u32) -> V4 {
    return V4(bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u)));
}
