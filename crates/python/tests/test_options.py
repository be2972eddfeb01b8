"""The options of a load, each by its effect."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rustorch_llama import LLM, AsyncLLM, EngineError, SamplingParams

TOKENS = [[1, 300, 301, 302], [1], [1] + list(range(280, 330))]


def load(**options: Any) -> LLM:
    return LLM("demo", **{"device": "cpu", "max_model_len": 64, "max_num_seqs": 2, **options})


def test_a_model_is_a_file(tmp_path: Path, llm: LLM) -> None:
    demo = Path(__file__).parents[3] / "models/demo/demo.gguf"
    for path in (demo, str(demo)):
        other = LLM(path, device="cpu", max_model_len=64, max_num_seqs=2)
        assert np.array_equal(other.forward_batch(TOKENS), llm.forward_batch(TOKENS))
    with pytest.raises(FileNotFoundError, match="no.gguf"):
        LLM(tmp_path / "no.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGML nonsense")
    with pytest.raises(EngineError, match="bad.gguf.*not a GGUF file"):
        LLM(tmp_path / "bad.gguf")


def test_logits_are_rows_of_an_array(llm: LLM) -> None:
    logits = llm.forward_batch(TOKENS)
    assert logits.shape == (3, llm.vocab_size) and logits.dtype == np.float32
    logits[0, 0] = 0  # It is the caller's own.
    alone = [llm.forward_batch([tokens])[0] for tokens in TOKENS]
    # More sequences than run at a time.
    many = llm.forward_batch(TOKENS * 11)
    assert np.array_equal(many, np.stack(alone * 11))
    [output] = llm.generate(TOKENS[0], SamplingParams(temperature=0, max_tokens=1), use_tqdm=False)
    assert int(alone[0].argmax()) == output.outputs[0].token_ids[0]
    wrong: list[tuple[Any, str]] = [([], "at least one sequence"), ([[]], "at least one token"), ([[99999]], "99999")]
    for tokens, message in wrong:
        with pytest.raises(ValueError, match=message):
            llm.forward_batch(tokens)


def test_device() -> None:
    assert "CPU" in load().device or "cpu" in load().device
    with pytest.raises(ValueError, match="device: expected auto, cpu, gpu.*found 'tpu'"):
        load(device="tpu")
    with pytest.raises(EngineError, match="device: cuda"):
        load(device="cuda:77")


def test_tensor_parallel_size(llm: LLM) -> None:
    ranks = load(tensor_parallel_size=2)
    assert ranks.device.startswith("2 ranks: CPU") and "ranks" not in load().device
    assert np.array_equal(ranks.forward_batch(TOKENS), llm.forward_batch(TOKENS))
    with pytest.raises(ValueError, match="tensor_parallel_size: expected at least 1, found 0"):
        load(tensor_parallel_size=0)
    with pytest.raises(EngineError, match="tensor parallel: expected at most 4 ranks"):
        load(tensor_parallel_size=5)


def test_activations() -> None:
    rounded, exact = load(activations=8), load(activations=16)
    assert (rounded.activations, exact.activations, load().activations) == (8, 16, 8)
    assert np.array_equal(rounded.forward_batch(TOKENS), load().forward_batch(TOKENS))
    assert not np.array_equal(rounded.forward_batch(TOKENS), exact.forward_batch(TOKENS))
    with pytest.raises(ValueError, match="activations: bits of activations: expected 8 or 16, found '12'"):
        load(activations=12)
    with pytest.raises(ValueError, match="activations: expected a CPU, found cuda"):
        load(activations=16, device="cuda")


def test_max_model_len() -> None:
    llm = load(max_model_len=48)
    assert llm.max_model_len == 48
    [output] = llm.generate("A", SamplingParams(max_tokens=None, ignore_eos=True), use_tqdm=False)
    assert len(output.prompt_token_ids) + len(output.outputs[0].token_ids) == 48
    with pytest.raises(ValueError, match="maximum context length is 48 tokens"):
        llm.generate("A", SamplingParams(max_tokens=48), use_tqdm=False)


def test_max_num_seqs() -> None:
    assert (load(max_num_seqs=3).max_num_seqs, load(max_num_seqs=None).max_num_seqs) == (3, 64)


def test_kv_dtype() -> None:
    half, full = load(kv_dtype="f16"), load(kv_dtype="f32")
    assert (half.kv_bytes_per_token * 2, half.kv_bytes_per_token) == (
        full.kv_bytes_per_token,
        load().kv_bytes_per_token,
    )
    assert np.array_equal(half.forward_batch(TOKENS), load(kv_dtype="auto").forward_batch(TOKENS))
    assert not np.array_equal(half.forward_batch(TOKENS), full.forward_batch(TOKENS))
    with pytest.raises(ValueError, match='kv_dtype: expected f16 or f32, found "fp8"'):
        load(kv_dtype="fp8")


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux to count threads")
def test_threads() -> None:
    def started(threads: int) -> tuple[LLM, int]:
        before = len(os.listdir("/proc/self/task"))
        llm = load(threads=threads)
        return llm, len(os.listdir("/proc/self/task")) - before

    (one, one_started), (five, five_started) = started(1), started(5)
    assert five_started - one_started == 4
    assert np.array_equal(one.forward_batch(TOKENS), five.forward_batch(TOKENS))


@pytest.mark.parametrize("name", ["max_model_len", "max_num_seqs", "threads"])
def test_counts_are_at_least_one(name: str) -> None:
    for found in (0, -1):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, found {found}"):
            load(**{name: found})


def test_a_model_is_pickled_by_its_arguments() -> None:
    llm = load(max_model_len=40, threads=1)
    other = pickle.loads(pickle.dumps(llm))
    assert (type(other), other.max_model_len, repr(other)) == (LLM, 40, repr(llm))
    assert "LLM(model='demo', device='cpu', max_model_len=40" in repr(llm)
    copied = pickle.loads(pickle.dumps(AsyncLLM("demo", device="cpu", max_model_len=40, max_num_seqs=2)))
    assert type(copied) is AsyncLLM


def test_texts_and_tokens(llm: LLM) -> None:
    text = "Once upon a time"
    bare = llm.tokenize(text, add_special_tokens=False)
    assert llm.tokenize(text)[-len(bare) :] == bare and len(llm.tokenize(text)) == len(bare) + 1
    assert llm.detokenize(bare) == llm.detokenize(llm.tokenize(text)) == text
    assert llm.detokenize(llm.tokenize(text), skip_special_tokens=False) != text
    with pytest.raises(ValueError, match="token_ids: expected ids below the vocabulary size"):
        llm.detokenize([99999])


def test_embeddings(llm: LLM) -> None:
    texts = ["A dog runs.", "A dog ran.", "It rains."]
    outputs = llm.embed(texts, use_tqdm=False)
    vectors = np.stack([output.outputs.embedding for output in outputs])
    assert vectors.dtype == np.float32 and outputs[0].outputs.hidden_size == vectors.shape[1]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)  # f32 numbers of length 1
    [alone] = llm.embed(texts[1], use_tqdm=False)
    assert np.array_equal(alone.outputs.embedding, vectors[1])
    assert alone.prompt_token_ids == llm.tokenize(texts[1])
    [mean] = llm.embed({"prompt": texts[1]}, use_tqdm=False, pooling="mean")
    assert not np.array_equal(mean.outputs.embedding, vectors[1])
    with pytest.raises(ValueError, match='pooling: expected "last" or "mean"'):
        llm.embed("A", use_tqdm=False, pooling="cls")
