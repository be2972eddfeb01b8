// A block's bits: its quants, the bits above those (HIGH), its half of a word of scales, and what scales the scales
// (SUPER). The format says what its quants and its high bits are: `Quants` and `High`.
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<Quants>;
//@if HIGH
@group(0) @binding(${HIGH}) var<storage, read> high: array<High>;
//@end
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;
//@if SUPER
@group(0) @binding(${SUPER}) var<storage, read> supers: array<u32>;
//@end

struct Raw {
    q: Quants,
    //@if HIGH
    high: High,
    //@end
    scale: u32,
    // Where in the word of two lanes this lane's half starts.
    shift: u32,
    //@if SUPER
    // d, and dmin above it in formats that have minima.
    factors: u32,
    //@end
}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(
        quants[tile * 32u + lane],
        //@if HIGH
        high[tile * 32u + lane],
        //@end
        scales[tile * 16u + (lane >> 1u)],
        (lane & 1u) * 16u,
        //@if SUPER
        supers[super_index],
        //@end
    );
}
