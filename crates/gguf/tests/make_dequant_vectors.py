"""Makes data/dequant_vectors.gguf: random blocks of every format and their values by an independent implementation.

    pip install gguf==0.19.0 numpy
    python make_dequant_vectors.py

Both the GGUF writer and the dequantisation are those of the PyPI package `gguf` (ggml's own, in numpy). Every format F
gives two tensors: "F" with random bits but finite scales, and "F.values", the same weights as F32. The metadata holds
one key of every value type.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

OUT = Path(__file__).parent / "data" / "dequant_vectors.gguf"
ROWS = 3

# Byte offsets of the binary16 scales in a block.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "MXFP4": [],
    "IQ1_S": [0],
    "IQ1_M": [],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ3_XXS": [0],
    "IQ3_S": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
}


def random_blocks(rng, qtype):
    """uint8 [ROWS, bytes per row]: random bits; the first block all zeros, the second all ones, but for the scales."""
    block_len, block_bytes = GGML_QUANT_SIZES[qtype]
    if qtype.name not in SCALES:
        values = rng.normal(size=(ROWS, 64)).astype(np.float32)
        values[0, :6] = [0.0, -0.0, 1.0, 1e-40, 65504.0, -(2.0**-24)]
        if qtype == GGMLQuantizationType.F16:
            return values.astype(np.float16).view(np.uint8)
        if qtype == GGMLQuantizationType.BF16:
            return np.ascontiguousarray(values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.view(np.uint8)
    blocks_per_row = max(2, 128 // block_len)
    blocks = rng.integers(0, 256, size=(ROWS * blocks_per_row, block_bytes), dtype=np.uint8)
    blocks[0] = 0x00
    blocks[1] = 0xFF
    for at in SCALES[qtype.name]:
        scales = rng.normal(scale=0.05, size=len(blocks)).astype(np.float16)
        scales[-1] = np.float16(3e-7)  # A subnormal one.
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    if qtype == GGMLQuantizationType.MXFP4:
        # Exponents: ordinary ones, the two subnormal ones, the least above, and one as large as values stay finite with.
        blocks[:, 0] = rng.integers(100, 140, size=len(blocks))
        blocks[:4, 0] = [0, 1, 2, 250]
    if qtype == GGMLQuantizationType.IQ1_M:
        # The scale is in the top four bits of four words.
        scales = rng.normal(scale=0.05, size=len(blocks)).astype(np.float16).view(np.uint16)
        for k in range(4):
            high = blocks[:, 48 + 2 * k + 1]
            high[:] = (high & 15) | ((scales >> (4 * k) & 15) << 4).astype(np.uint8)
    return blocks.reshape(ROWS, -1)


def main():
    rng = np.random.default_rng(20240229)
    writer = GGUFWriter(OUT, "vectors")
    writer.add_uint8("value.u8", 200)
    writer.add_int8("value.i8", -100)
    writer.add_uint16("value.u16", 60_000)
    writer.add_int16("value.i16", -30_000)
    writer.add_uint32("value.u32", 4_000_000_000)
    writer.add_int32("value.i32", -2_000_000_000)
    writer.add_float32("value.f32", 0.1)
    writer.add_bool("value.bool", True)
    writer.add_string("value.string", "naïve 🦊\0")
    writer.add_uint64("value.u64", 2**64 - 1)
    writer.add_int64("value.i64", -(2**63))
    writer.add_float64("value.f64", 0.1)
    writer.add_array("value.strings", ["<s>", "", "é"])
    writer.add_array("value.i32s", [1, -2, 3])
    writer.add_array("value.f32s", [0.5, -1.5])
    writer.add_array("value.bools", [True, False])
    writer.add_key_value("value.u16s", [1, 65_535], GGUFValueType.ARRAY, GGUFValueType.UINT16)
    for name in ["F32", "F16", "BF16", *SCALES]:
        qtype = GGMLQuantizationType[name]
        blocks = random_blocks(rng, qtype)
        values = dequantize(blocks, qtype)
        assert np.isfinite(values).all()
        writer.add_tensor(name, blocks, raw_dtype=qtype)
        writer.add_tensor(f"{name}.values", np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
