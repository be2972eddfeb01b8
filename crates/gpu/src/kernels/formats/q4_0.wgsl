// Q4_0: (q - 8) * d.
//@include formats/parts/nibbles
//@include formats/parts/scale_d
//@include formats/parts/block
alias Quants = vec4<u32>;

fn setup(local_index: u32) {}

fn low_quad(w: u32, scale: Scale) -> V4 {
    return low_nibbles4_less(w, 8.0) * scale.d;
}

fn high_quad(w: u32, scale: Scale) -> V4 {
    return high_nibbles4_less(w, 8.0) * scale.d;
}
