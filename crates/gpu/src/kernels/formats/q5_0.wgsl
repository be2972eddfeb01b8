// Q5_0: (q - 16) * d.
//@include formats/parts/five_bits
//@include formats/parts/scale_d
//@include formats/parts/block
alias Quants = vec4<u32>;
alias High = u32;

fn setup(local_index: u32) {}

fn quad(bytes: u32, scale: Scale) -> V4 {
    return bytes4_less(bytes, 16.0) * scale.d;
}
