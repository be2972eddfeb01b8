// A softmax over positions is merged from partials: values weighted by exp(score - max), and the sum of those weights.
// The factors bring what has been merged (x) and the next partial (y) to their common maximum.
fn merge_factors(max_so_far: f32, next_max: f32) -> vec2<f32> {
    let both = max(max_so_far, next_max);
    return vec2<f32>(exp(max_so_far - both), exp(next_max - both));
}

fn merged_sum(sum: f32, next_sum: f32, factors: vec2<f32>) -> f32 {
    return fma(sum, factors.x, next_sum * factors.y);
}

fn merged_values(values: vec2<f32>, next: vec2<f32>, factors: vec2<f32>) -> vec2<f32> {
    return fma(values, vec2<f32>(factors.x), next * factors.y);
}
