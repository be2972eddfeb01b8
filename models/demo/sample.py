"""Reads a GGUF file and writes text with it, in float64 numpy: an independent check of the export.

    python sample.py -p "Once upon a time, there was a little fox" [--chat] [-t 0.8] [--seed 1]

Everything comes from the file: weights, vocabulary, merges, chat template.
"""

import argparse

import gguf
import numpy as np
from jinja2 import Template
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from corpus import document


class Model:
    """Llama with a KV cache of one sequence; RoPE turns dimensions 2i and 2i + 1."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.meta = {k: f.contents() for k, f in reader.fields.items()}
        self.w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
        get = lambda key: self.meta["llama." + key]  # noqa: E731
        self.layers, self.heads, self.kv_heads = (
            get("block_count"),
            get("attention.head_count"),
            get("attention.head_count_kv"),
        )
        self.dim, self.eps = get("rope.dimension_count"), get("attention.layer_norm_rms_epsilon")
        self.freq = get("rope.freq_base") ** (-np.arange(0, self.dim, 2) / self.dim)
        self.reset()

    def reset(self):
        self.k = [[] for _ in range(self.layers)]
        self.v = [[] for _ in range(self.layers)]

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x) + self.eps) * self.w[name]

    def rope(self, x, position):
        """x [heads, dim]."""
        angle = position * self.freq
        a, b = x[:, 0::2], x[:, 1::2]
        out = np.empty_like(x)
        out[:, 0::2] = a * np.cos(angle) - b * np.sin(angle)
        out[:, 1::2] = a * np.sin(angle) + b * np.cos(angle)
        return out

    def step(self, token):
        """Appends one token; the logits [vocab] after it."""
        w, position = self.w, len(self.k[0])
        x = w["token_embd.weight"][token]
        for i in range(self.layers):
            b = f"blk.{i}."
            h = self.norm(x, b + "attn_norm.weight")
            q = self.rope((w[b + "attn_q.weight"] @ h).reshape(self.heads, -1), position)
            self.k[i].append(self.rope((w[b + "attn_k.weight"] @ h).reshape(self.kv_heads, -1), position))
            self.v[i].append((w[b + "attn_v.weight"] @ h).reshape(self.kv_heads, -1))
            group = self.heads // self.kv_heads
            k, v = np.repeat(self.k[i], group, 1), np.repeat(self.v[i], group, 1)  # [positions, heads, dim]
            scores = np.einsum("hd,phd->hp", q, k) / np.sqrt(self.dim)
            p = np.exp(scores - scores.max(1, keepdims=True))
            y = np.einsum("hp,phd->hd", p / p.sum(1, keepdims=True), v)
            x = x + w[b + "attn_output.weight"] @ y.reshape(-1)
            h = self.norm(x, b + "ffn_norm.weight")
            gate = w[b + "ffn_gate.weight"] @ h
            x = x + w[b + "ffn_down.weight"] @ (gate / (1 + np.exp(-gate)) * (w[b + "ffn_up.weight"] @ h))
        return w.get("output.weight", w["token_embd.weight"]) @ self.norm(x, "output_norm.weight")


def tokenizer_of(meta):
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True) for t, k in zip(tokens, kinds) if k == gguf.TokenType.CONTROL])
    return tok


def generate(model, tok, ids, temperature, rng, limit):
    stop = {model.meta["tokenizer.ggml.eos_token_id"], model.meta["tokenizer.ggml.eot_token_id"]}
    model.reset()
    for token in ids:
        logits = model.step(token)
    out = []
    while len(out) < limit:
        if temperature == 0:
            token = int(logits.argmax())
        else:
            p = np.exp((logits - logits.max()) / temperature)
            token = int(rng.choice(len(p), p=p / p.sum()))
        if token in stop:
            return tok.decode(out), True
        out.append(token)
        logits = model.step(token)
    return tok.decode(out), False


def mean_loss(model, tok, n, seed=1_001):
    """Mean loss in nats per token, EOS included, over the first n validation documents of `train.py`."""
    special = {i: model.meta[f"tokenizer.ggml.{i}_token_id"] for i in ("bos", "eos")}
    total = count = 0
    for i in range(n):
        ids = [special["bos"]] + tok.encode(document(seed, i)).ids + [special["eos"]]
        model.reset()
        for token, target in zip(ids, ids[1:]):
            logits = model.step(token)
            top = logits.max()
            total += top + np.log(np.exp(logits - top).sum()) - logits[target]
            count += 1
    return total / count, count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default="demo.gguf")
    parser.add_argument("-p", "--prompt", action="append", default=[])
    parser.add_argument("-t", "--temperature", type=float, default=0.0)
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chat", action="store_true")
    parser.add_argument(
        "--loss", type=int, default=0, metavar="N", help="also print the loss over N validation documents"
    )
    args = parser.parse_args()
    model = Model(args.model)
    tok = tokenizer_of(model.meta)
    bos = model.meta["tokenizer.ggml.tokens"][model.meta["tokenizer.ggml.bos_token_id"]]
    for prompt in args.prompt:
        text = bos + prompt
        if args.chat:
            text = Template(model.meta["tokenizer.chat_template"]).render(
                messages=[{"role": "user", "content": prompt}], bos_token=bos, add_generation_prompt=True
            )
        rng = np.random.default_rng(args.seed)
        out, stopped = generate(model, tok, tok.encode(text).ids, args.temperature, rng, args.n)
        print(f"=== {prompt}\n{out}\n{'[stop]' if stopped else '[limit]'}\n")
    if args.loss:
        print("loss %.4f nats over %d tokens" % mean_loss(model, tok, args.loss))


if __name__ == "__main__":
    main()
