"""Perplexity of story.txt under the demo model by llama.cpp: the figures that perplexity.rs expects.

    pip install llama-cpp-python numpy
    python perplexity.py

What is scored follows llama.cpp's tools/perplexity: windows of n tokens, BOS in the place of each first one, the
predictions of the second half; the logits are llama.cpp's.
"""

from pathlib import Path

import numpy as np
from llama_cpp import Llama

HERE = Path(__file__).parent
MODEL = HERE / "../../../../models/demo/demo.gguf"
TEXT = (HERE / "story.txt").read_bytes()

for n in [64, 128, 512]:
    llama = Llama(str(MODEL), n_ctx=n, n_batch=n, n_ubatch=n, logits_all=True, verbose=False)
    tokens = llama.tokenize(TEXT, add_bos=True, special=False)
    losses = []
    for start in range(0, len(tokens) - n + 1, n):
        window = tokens[start : start + n]
        llama.reset()
        llama.eval([llama.token_bos(), *window[1:]])
        for i in range(n // 2, n - 1):
            logits = llama.scores[i].astype(np.float64)
            logits -= logits.max()
            losses.append(np.log(np.exp(logits).sum()) - logits[window[i + 1]])
    value = np.exp(np.mean(losses))
    error = value * np.std(losses) / np.sqrt(len(losses) - 1)
    print(f'("{n}", {value:.4f}, {error:.5f}, {len(losses)}, {len(tokens) // n}),')
