// IQ2_XXS, IQ2_XS and IQ2_S, their points taken apart: levels of three magnitudes.
//@include formats/parts/levels

fn all_levels() -> array<V, 16> {
    return array<V, 16>(
        8.0, 25.0, 43.0, -8.0, -25.0, -43.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    );
}
