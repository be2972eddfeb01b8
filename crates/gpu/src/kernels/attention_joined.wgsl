// A softmax over positions falls into parts: values weighted by exp(score - max), and the sum of those weights.
// The factors that bring the parts so far (x) and the next part (y) to their common maximum.
fn join_factors(max_so_far: f32, part_max: f32) -> vec2<f32> {
    let both = max(max_so_far, part_max);
    return vec2<f32>(exp(max_so_far - both), exp(part_max - both));
}

fn joined_sum(sum: f32, part_sum: f32, factors: vec2<f32>) -> f32 {
    return fma(sum, factors.x, part_sum * factors.y);
}

fn joined_values(values: vec2<f32>, part: vec2<f32>, factors: vec2<f32>) -> vec2<f32> {
    return fma(values, vec2<f32>(factors.x), part * factors.y);
}
