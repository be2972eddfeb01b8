// IQ3_XXS, its points taken apart: levels of eight magnitudes.
//@include formats/parts/levels

fn all_levels() -> array<V, 16> {
    return array<V, 16>(
        4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0, -4.0, -12.0, -20.0, -28.0, -36.0, -44.0, -52.0, -62.0,
    );
}
