"""Makes the test vectors of this folder with llama.cpp: `pip install llama-cpp-python==0.3.36`, then `python make.py`.

What a pre-tokenizer does shows in the ids only through the merges, so one vocabulary (GPT-2's) serves for all: the file is
copied with another `tokenizer.ggml.pre`. `texts.inp` has texts separated by lines `__ggml_vocab_test__`; each `NAME.out`
has the ids of one text a line, as in `../vocab`.
"""

import struct
import tempfile
from pathlib import Path

import llama_cpp

NAMES = """default llama-bpe smaug-bpe qwen2 qwen35 gpt-2 starcoder falcon deepseek-llm deepseek-coder deepseek-v3 tekken
gpt-4o bloom viking bailingmoe seed-coder""".split()
HERE = Path(__file__).parent
GPT_2 = (HERE / "../vocab/ggml-vocab-gpt-2.gguf").read_bytes()
TEXTS = (HERE / "texts.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")


def with_pre(name: str) -> bytes:
    key = b"tokenizer.ggml.pre"
    length_at = GPT_2.index(key) + len(key) + 4  # after the value's type
    (length,) = struct.unpack_from("<Q", GPT_2, length_at)
    value = struct.pack("<Q", len(name)) + name.encode()
    return GPT_2[:length_at] + value + GPT_2[length_at + 8 + length :]


def tokenize(path: str) -> list[list[int]]:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    buffer = (llama_cpp.llama_token * 4096)()
    rows = []
    for text in TEXTS:
        data = text.encode()
        n = llama_cpp.llama_tokenize(vocab, data, len(data), buffer, len(buffer), False, False)
        assert n >= 0
        rows.append(list(buffer[:n]))
    llama_cpp.llama_model_free(model)
    return rows


for name in NAMES:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(with_pre(name))
        file.flush()
        rows = tokenize(file.name)
    (HERE / f"{name}.out").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
