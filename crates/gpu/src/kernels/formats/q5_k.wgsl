// Q5_K: q * (d * sc) - (dmin * min).
//@include formats/parts/five_bits
//@include formats/parts/scale_k_min
//@include formats/parts/block
alias Quants = vec4<u32>;
alias High = u32;

fn setup(local_index: u32) {}

fn quad(bytes: u32, scale: Scale) -> V4 {
    return fma(bytes4(bytes), V4(scale.d), V4(-scale.m));
}
