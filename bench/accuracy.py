"""Compares the error of rustorch's logits with llama.cpp's, both against float64, on small models with random weights.

    cargo run --release -p rustorch-testkit --example write_models -- DIR
    venv/bin/python bench/accuracy.py DIR

A file's error is |logits - float64| / |float64| (Euclidean), over its sequences together. Prints a line a file and the
geometric mean of the ratios over the files with quantised weights; below 1, rustorch is the closer one.
"""

import argparse
import ctypes
import json
import math
import pathlib
import re
import subprocess

import llama_cpp
import numpy

HERE = pathlib.Path(__file__).resolve().parent
# Files are named by their weights' format, if it is not F32.
QUANTISED = re.compile(r"(^|_)i?q\d")


@llama_cpp.llama_log_callback
def silent(_level, _text, _user_data):
    pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path, help="what write_models wrote")
    parser.add_argument("--rustorch", default=HERE.parent / "target/release/rustorch", type=pathlib.Path)
    args = parser.parse_args()
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    ratios = []
    for path in sorted(args.models.glob("*.gguf")):
        expect = json.loads(path.with_suffix(".json").read_text())
        mine = error(ours(args.rustorch, path, expect["sequences"]), expect["logits"])
        other = error(peer(path, expect["sequences"]), expect["logits"])
        print(f"{path.stem:24} rustorch {mine:.2e}  llama.cpp {other:.2e}  ratio {mine / other:.2f}")
        if QUANTISED.search(path.stem):
            ratios.append(mine / other)
    print(f"geometric mean over {len(ratios)} quantised files: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.3f}")


def error(logits, expect):
    logits, expect = numpy.array(logits, dtype=float), numpy.array(expect)
    return numpy.linalg.norm(logits - expect) / numpy.linalg.norm(expect)


def ours(rustorch, path, sequences):
    tokens = [word for sequence in sequences for word in ("--tokens", " ".join(map(str, sequence)))]
    done = subprocess.run([rustorch, "logits", "-m", path, *tokens], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line)["logits"] for line in done.stdout.splitlines()]


def peer(path, sequences):
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    logits = []
    for sequence in sequences:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(32, len(sequence))
        context = llama_cpp.llama_init_from_model(model, params)
        tokens = (llama_cpp.llama_token * len(sequence))(*sequence)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(sequence))) != 0:
            raise SystemExit(f"llama_decode fails on {path}")
        logits.append(llama_cpp.llama_get_logits_ith(context, -1)[:vocab_size])
        llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits


if __name__ == "__main__":
    main()
