// IQ3_S, IQ1_S and IQ1_M, their points taken apart: levels of eight odd magnitudes.
//@include formats/parts/levels

fn all_levels() -> array<V, 16> {
    return array<V, 16>(
        1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0, -1.0, -3.0, -5.0, -7.0, -9.0, -11.0, -13.0, -15.0,
    );
}
