// Q4_K: q * (d * sc) - (dmin * min).
//@include formats/parts/nibbles
//@include formats/parts/scale_k_min
//@include formats/parts/block
alias Quants = vec4<u32>;

fn setup(local_index: u32) {}

fn low_quad(w: u32, scale: Scale) -> V4 {
    return fma(low_nibbles4_less(w, 0.0), V4(scale.d), V4(-scale.m));
}

fn high_quad(w: u32, scale: Scale) -> V4 {
    return fma(high_nibbles4_less(w, 0.0), V4(scale.d), V4(-scale.m));
}
