// F16, as it is.
//@include formats/parts/sixteen_bits

fn quad(a: u32, b: u32) -> V4 {
    return V4(half2(a), half2(b));
}
