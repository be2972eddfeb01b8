// Activations for matrix units: f16 of a sixteenth, so that the largest activations of real models (some 10^5) stay
// in range; what loses digits by it is below 10^-3.
const HALF_MAX = 65504.0;

// Two activations as a word of two f16.
fn half_word(a: f32, b: f32) -> u32 {
    return pack2x16float(clamp(vec2<f32>(a, b) * 0.0625, vec2<f32>(-HALF_MAX), vec2<f32>(HALF_MAX)));
}
