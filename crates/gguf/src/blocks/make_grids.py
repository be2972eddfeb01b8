"""Makes grids.rs: the lattices of the IQ1, IQ2 and IQ3 formats, whose points are eight or four weights.

    pip install gguf==0.19.0 numpy
    python make_grids.py

The values are those of the PyPI package `gguf` (ggml's own).
"""

from pathlib import Path

import numpy as np
from gguf import quants

OUT = Path(__file__).parent / "grids.rs"

# Name, the class that has the points, bits of a weight's index, and what the table is.
GRIDS = [
    ("IQ1_GRID", quants.IQ1_S, 2, "Points of IQ1_S and IQ1_M: of -1, 0 and 1."),
    ("IQ2_XXS_GRID", quants.IQ2_XXS, 2, "Points of IQ2_XXS: of 8, 25 and 43."),
    ("IQ2_XS_GRID", quants.IQ2_XS, 2, "Points of IQ2_XS: of 8, 25 and 43."),
    ("IQ2_S_GRID", quants.IQ2_S, 2, "Points of IQ2_S: of 8, 25 and 43."),
    ("IQ3_XXS_GRID", quants.IQ3_XXS, 3, "Points of IQ3_XXS: of 4, 12, 20, 28, 36, 44, 52 and 62."),
    ("IQ3_S_GRID", quants.IQ3_S, 3, "Points of IQ3_S: of 1, 3, 5, 7, 9, 11, 13 and 15."),
]


def main():
    lines = [
        "//! The lattices of the IQ1, IQ2 and IQ3 formats. Made by `make_grids.py`.",
        "//!",
        "//! A point's weights are indices into the few values that the format has, the first in the lowest bits: two bits each of",
        "//! eight weights, or three of four.",
        "",
    ]
    for name, quant, bits, doc in GRIDS:
        quant.init_grid()
        points = quant.grid.reshape(quant.grid_shape)
        values = list(quant.grid_map)
        indices = np.vectorize(values.index)(points.astype(int))
        packed = (indices << (bits * np.arange(points.shape[1]))).sum(axis=1)
        assert packed.max() < 1 << 16
        lines += [f"/// {doc}", "#[rustfmt::skip]", f"pub(super) static {name}: [u16; {len(packed)}] = ["]
        lines += ["    " + ", ".join(f"0x{x:04x}" for x in row) + "," for row in packed.reshape(-1, 16)]
        lines += ["];", ""]
    OUT.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
