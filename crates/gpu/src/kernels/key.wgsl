const ZERO = 0x80000000u;
const INFINITY = 0x7f800000u;

// A number that is greater for a greater value. Of the bits, since shaders may take it that no value is NaN or infinite.
// NaN counts as minus infinity, and plus infinity as the greatest number.
fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let magnitude = bits & 0x7fffffffu;
    if magnitude > INFINITY {
        return ZERO - INFINITY;
    }
    return select(ZERO + min(magnitude, INFINITY - 1u), ZERO - magnitude, bits >= ZERO);
}
