"""Makes the seeds of the fuzz target `reader`: small files that between them reach every branch of the reader.

    pip install gguf==0.19.0 numpy
    python make_seeds.py
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, GGUFWriter

OUT = Path(__file__).parent / "corpus" / "reader"
FORMATS = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
FORMATS += "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ1_0 TQ2_0".split()


def write(name, fill):
    writer = GGUFWriter(OUT / f"{name}.gguf", "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tensor(writer, name, rows, qtype):
    block_len, block_bytes = GGML_QUANT_SIZES[qtype]
    blocks = np.arange(rows * block_bytes * (1 if block_len > 1 else 4), dtype=np.uint8).reshape(rows, -1)
    writer.add_tensor(name, blocks, raw_dtype=qtype)


def every_format(writer):
    for name in FORMATS:
        add_tensor(writer, name, 1, GGMLQuantizationType[name])


def every_value(writer):
    numbers = "UINT8 INT8 UINT16 INT16 UINT32 INT32 FLOAT32 UINT64 INT64 FLOAT64".split()
    for name in numbers:
        writer.add_key_value(name, 1, GGUFValueType[name])
        writer.add_key_value(f"{name}s", [1, 2], GGUFValueType.ARRAY, GGUFValueType[name])
    writer.add_bool("b", True)
    writer.add_array("bs", [True, False])
    writer.add_string("s", "é")
    writer.add_array("ss", ["a", "", "é"])


def alignment(writer):
    writer.add_custom_alignment(8)
    add_tensor(writer, "a", 3, GGMLQuantizationType.Q8_0)
    add_tensor(writer, "b", 1, GGMLQuantizationType.F32)


def split(writer):
    writer.add_uint16("split.no", 0)
    writer.add_uint16("split.count", 2)
    writer.add_int32("split.tensors.count", 2)
    add_tensor(writer, "a", 1, GGMLQuantizationType.F16)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    write("no_tensors", lambda writer: None)
    write("every_format", every_format)
    write("every_value", every_value)
    write("alignment", alignment)
    write("split", split)
    (OUT / "large_counts.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**40, 2**40) + bytes(16))
    (OUT / "version_2.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 2, 0, 1) + struct.pack("<QcIB", 1, b"k", 0, 7))


if __name__ == "__main__":
    main()
