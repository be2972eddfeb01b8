"""Measures llama.cpp against the float64 reference: writes llama_cpp_errors.json beside this script.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0 numpy
    cargo run --release -p rustorch-testkit --example write_models -- /tmp/models
    python llama_cpp_errors.py /tmp/models

The package is built from source for the machine at hand (the default of pip where it finds no wheel), so that
llama.cpp runs its best CPU kernels. The models are the test kit's, the same bytes wherever they are made; nothing
but this script's output is kept.

For each model and each setting of llama.cpp, the output has the relative L2 error of the last logits, over all
sequences together ("all") and for each ("each"):

    f32        f32 KV cache, no flash attention
    f16        f16 KV cache (llama.cpp's default), no flash attention
    f16_flash  f16 KV cache, flash attention

"norm" is that of the reference logits: whoever uses the figures can tell that they belong to the same models.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from llama_cpp import Llama

OUT = Path(__file__).with_suffix(".json")
F32, F16 = 0, 1  # enum ggml_type
SETTINGS = {
    "f32": dict(type_k=F32, type_v=F32, flash_attn=False),
    "f16": dict(type_k=F16, type_v=F16, flash_attn=False),
    "f16_flash": dict(type_k=F16, type_v=F16, flash_attn=True),
}
# llama.cpp reads these keys for some architectures only; for llama they are parameters of the context.
YARN = ["yarn_ext_factor", "yarn_beta_fast", "yarn_beta_slow"]


def yarn_parameters(path):
    reader = GGUFReader(path)
    fields = {name: reader.get_field(f"llama.rope.scaling.{name}") for name in YARN}
    return {name: float(field.contents()) for name, field in fields.items() if field is not None}


def last_logits(path, sequences, setting):
    llama = Llama(
        str(path),
        n_ctx=128,
        n_batch=128,
        n_threads=2,
        logits_all=True,
        verbose=False,
        **setting,
        **yarn_parameters(path),
    )
    rows = []
    for tokens in sequences:
        llama.reset()
        llama.eval(tokens)
        rows.append(llama.scores[len(tokens) - 1].astype(np.float64).copy())
    return rows


def relative_l2(got, want):
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def rounded(error):
    return float(f"{error:.4g}")


def main():
    models = {}
    for path in sorted(Path(sys.argv[1]).glob("*.gguf")):
        reference = json.loads(path.with_suffix(".json").read_text())
        want = [np.array(row) for row in reference["logits"]]
        models[path.stem] = {"norm": float(np.linalg.norm(np.concatenate(want)))}
        for name, setting in SETTINGS.items():
            got = last_logits(path, reference["sequences"], setting)
            models[path.stem][name] = {
                "all": rounded(relative_l2(np.concatenate(got), np.concatenate(want))),
                "each": [rounded(relative_l2(g, w)) for g, w in zip(got, want)],
            }
        print(f"{path.stem:20}", *(f"{name} {models[path.stem][name]['all']:.2e}" for name in SETTINGS))
    lines = [f"  {json.dumps(name)}: {json.dumps(errors)}" for name, errors in models.items()]
    header = f'{{\n "llama_cpp_python": "{version("llama-cpp-python")}",\n "models": {{\n'
    OUT.write_text(header + ",\n".join(lines) + "\n }\n}\n")


if __name__ == "__main__":
    main()
