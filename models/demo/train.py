"""Trains the demo model: a standard Llama on the stories of `corpus.py`.

    python train.py --out checkpoint

Writes `model.safetensors` (f32, the names of Hugging Face's Llama, rotary pairs half a head apart),
`config.json` and `loss.jsonl`. Validation documents come from another seed.
"""

import argparse
import json
import math
import multiprocessing as mp
import os
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

from corpus import document

BOS_ID, EOS_ID = 0, 1
IGNORE = -100


@dataclass
class Config:
    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self):
        return self.hidden_size // self.num_attention_heads


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rotate(x, cos, sin):
    """RoPE over [B, heads, T, head_dim]: dimension i turns with i + head_dim / 2."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, c.hidden_size, bias=False)

    def forward(self, x, cos, sin):
        n, t, _ = x.shape
        q, k, v = (p(x).view(n, t, -1, self.dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        repeat = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(n, t, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Token ids [B, T] -> logits [B, T, vocab]. The output matrix is the embedding."""

    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        freq = c.rope_theta ** (-torch.arange(0, c.head_dim, 2, dtype=torch.float64) / c.head_dim)
        angle = torch.arange(c.max_position_embeddings, dtype=torch.float64)[:, None] * freq
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * c.num_hidden_layers) if out else 0.02)

    def forward(self, ids):
        t = ids.shape[1]
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.cos[:t], self.sin[:t])
        return F.linear(self.norm(x), self.embed_tokens.weight)


# --- data ---------------------------------------------------------------------------------------


def _tokens(job):
    """Documents lo..hi of a seed as one array of ids, each with BOS and EOS, and their lengths."""
    path, seed, lo, hi = job
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tok = Tokenizer.from_file(path)
    docs = [[BOS_ID] + e.ids + [EOS_ID] for e in tok.encode_batch([document(seed, i) for i in range(lo, hi)])]
    return np.concatenate([np.array(d, np.uint16) for d in docs]), [len(d) for d in docs]


def packed_rows(tokenizer_path, n, seed, length):
    """Packs whole documents into rows [R, length + 1]; EOS fills the rest, `used[R]` says from where."""
    step = 1000
    jobs = [(tokenizer_path, seed, lo, min(lo + step, n)) for lo in range(0, n, step)]
    rows, used, row, tokens = [], [], [], 0
    with mp.get_context("fork").Pool() as pool:
        for ids, lengths in pool.imap(_tokens, jobs):
            for doc in np.split(ids, np.cumsum(lengths)[:-1]):
                doc = doc[: length + 1]
                if row and sum(map(len, row)) + len(doc) > length + 1:
                    rows.append(np.concatenate(row))
                    row = []
                row.append(doc)
    rows.append(np.concatenate(row))
    packed = np.full((len(rows), length + 1), EOS_ID, np.uint16)
    for i, r in enumerate(rows):
        packed[i, : len(r)] = r
        tokens += len(r)
        used.append(len(r))
    return packed, np.array(used), tokens


def batch(rows, used, index, device):
    """Inputs and targets of the rows; padding and the step from one document to the next are not scored."""
    ids = torch.from_numpy(rows[index].astype(np.int64))
    x, y = ids[:, :-1], ids[:, 1:].clone()
    y[torch.arange(y.shape[1])[None] >= torch.from_numpy(used[index])[:, None] - 1] = IGNORE
    y[y == BOS_ID] = IGNORE
    return x.to(device, non_blocking=True), y.to(device, non_blocking=True)


# --- training -----------------------------------------------------------------------------------


def loss_of(model, x, y, amp):
    with torch.autocast(x.device.type, torch.bfloat16, enabled=amp):
        logits = model(x)
    return F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), ignore_index=IGNORE)


@torch.no_grad()
def validate(model, rows, used, args, device):
    losses = [
        loss_of(model, *batch(rows, used, np.arange(i, min(i + args.batch, len(rows))), device), False).item()
        for i in range(0, len(rows), args.batch)
    ]
    return sum(losses) / len(losses)


@torch.no_grad()
def sample(model, tok, prompt, temperature, seed, device, limit=300):
    ids = [BOS_ID] + tok.encode(prompt).ids
    g = torch.Generator().manual_seed(seed)
    start = len(ids)
    while len(ids) < start + limit and ids[-1] != EOS_ID:
        logits = model(torch.tensor([ids], device=device))[0, -1].float().cpu()
        ids.append(
            int(logits.argmax())
            if temperature == 0
            else int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=g))
        )
    return tok.decode(ids[start:], skip_special_tokens=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default="tokenizer.json")
    parser.add_argument("--out", default="checkpoint")
    parser.add_argument("--stories", type=int, default=2_000_000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"

    start = time.time()
    rows, used, tokens = packed_rows(args.tokenizer, args.stories, args.seed, args.length)
    val_rows, val_used, val_tokens = packed_rows(
        args.tokenizer, max(args.stories // 200, 200), 1_000 + args.seed, args.length
    )
    print(
        f"data: {args.stories} documents, {tokens} tokens in {len(rows)} rows, validation {val_tokens} tokens, "
        f"{time.time() - start:.0f} s",
        flush=True,
    )

    config = Config()
    raw = Llama(config).to(device)
    model = torch.compile(raw) if args.compile else raw
    n_params = sum(p.numel() for p in raw.parameters())
    matrices = [p for p in raw.parameters() if p.dim() == 2]
    vectors = [p for p in raw.parameters() if p.dim() == 1]
    opt = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=args.lr,
        betas=(0.9, 0.95),
        fused=device == "cuda",
    )
    warmup = min(200, args.steps // 10 + 1)
    order = np.random.default_rng(args.seed)
    perm, at = order.permutation(len(rows)), 0
    log = open(os.path.join(args.out, "loss.jsonl"), "w")
    start, running = time.time(), []
    for step in range(args.steps):
        if at + args.batch > len(perm):
            perm, at = order.permutation(len(rows)), 0
        x, y = batch(rows, used, perm[at : at + args.batch], device)
        at += args.batch
        lr = (
            args.lr * (step + 1) / warmup
            if step < warmup
            else args.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (args.steps - warmup))))
        )
        for group in opt.param_groups:
            group["lr"] = lr
        loss = loss_of(model, x, y, device == "cuda")
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
        opt.step()
        running.append(loss.detach())
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            entry = {
                "step": step + 1,
                "train_loss": round(torch.stack(running).mean().item(), 4),
                "validation_loss": round(validate(raw, val_rows, val_used, args, device), 4),
                "seconds": round(time.time() - start, 1),
            }
            running = []
            print(json.dumps(entry), flush=True)
            log.write(json.dumps(entry) + "\n")
            log.flush()

    save_file(
        {k: v.float().cpu().contiguous() for k, v in raw.state_dict().items()},
        os.path.join(args.out, "model.safetensors"),
    )
    with open(os.path.join(args.out, "config.json"), "w") as f:
        json.dump(
            {
                **asdict(config),
                "train": vars(args),
                "parameters": n_params,
                "train_tokens": tokens,
                "validation_tokens": val_tokens,
                "validation_loss": entry["validation_loss"],
                "train_loss": entry["train_loss"],
            },
            f,
            indent=1,
        )
    tok = Tokenizer.from_file(args.tokenizer)
    for i, prompt in enumerate(
        [
            "Once upon a time, there was a little fox",
            "One day,",
            "Lily was",
            "Tim and his dog",
            "<|im_start|>user\nTell me a story about a rabbit who lost a kite.<|im_end|>\n<|im_start|>assistant\n",
        ]
    ):
        for temperature in (0, 0.8):
            print(f"--- {temperature}: {prompt}>>{sample(raw, tok, prompt, temperature, i, device)}", flush=True)


if __name__ == "__main__":
    main()
