"""Times llama.cpp on a GGUF file, cell by cell, through llama-cpp-python's low-level batch API.

Prompts of a cell go in together, in calls of at most 512 tokens; then all sequences decode a token a call. Only
llama_decode and the wait for its logits are timed: no sampling, no text. Prints one JSON object:
{"version", "system", "cells": [{"batch", "length", "prompt_tokens_per_s", "step_seconds": [..]}, ..]}.
"""

import argparse
import ctypes
import json
import time

import llama_cpp

STEP_TOKENS = 512


@llama_cpp.llama_log_callback
def silent(_level, _text, _user_data):
    pass


class Model:
    """A loaded file."""

    def __init__(self, path, threads):
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
        self.threads = threads
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def cell(self, batch, length, steps):
        """Times one cell of the grid."""
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = batch * -(-(length + steps) // 256) * 256
        params.n_batch = params.n_ubatch = STEP_TOKENS
        params.n_seq_max = batch
        params.n_threads = params.n_threads_batch = self.threads
        context = llama_cpp.llama_init_from_model(self.model, params)
        if not context:
            raise SystemExit(f"llama.cpp cannot make a context for batch {batch}, length {length}")
        prompts = [
            (self.token(sequence, position), position, sequence, position == length - 1)
            for sequence in range(batch)
            for position in range(length)
        ]
        started = time.perf_counter()
        for first in range(0, len(prompts), STEP_TOKENS):
            self.decode(context, prompts[first : first + STEP_TOKENS])
        prompt_seconds = time.perf_counter() - started
        step_seconds = []
        for step in range(steps):
            tokens = [(self.token(s, length + step), length + step, s, True) for s in range(batch)]
            started = time.perf_counter()
            self.decode(context, tokens)
            step_seconds.append(time.perf_counter() - started)
        llama_cpp.llama_free(context)
        return {
            "batch": batch,
            "length": length,
            "prompt_tokens_per_s": batch * length / prompt_seconds,
            "step_seconds": step_seconds,
        }

    def token(self, sequence, position):
        return 300 + (sequence * 7919 + position * 104729) % (self.vocab_size - 300)

    def decode(self, context, tokens):
        """Runs one call; `tokens` are (id, position, sequence, whether its logits are wanted)."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        status = llama_cpp.llama_decode(context, batch)
        llama_cpp.llama_synchronize(context)
        llama_cpp.llama_batch_free(batch)
        if status != 0:
            raise SystemExit(f"llama_decode returned {status}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cells", required=True, help="BATCHxLENGTHxSTEPS,..")
    args = parser.parse_args()
    model = Model(args.model, args.threads)
    started = time.perf_counter()
    while time.perf_counter() < started + 1:
        model.cell(1, 32, 2)  # maps the file's pages, wakes the threads and brings the clock up
    cells = [model.cell(*map(int, cell.split("x"))) for cell in args.cells.split(",")]
    system = llama_cpp.llama_print_system_info().decode().strip()
    print(json.dumps({"version": llama_cpp.__version__, "system": system, "cells": cells}))


if __name__ == "__main__":
    main()
