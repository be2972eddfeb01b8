"""A loaded model: what `LLM` and `AsyncLLM` have in common."""

from __future__ import annotations

import os
import warnings
from typing import Any, Iterable, Optional, Sequence, TypeVar, Union

import numpy as np
import numpy.typing as npt

from ._requests import read_token_ids
from ._rustorch import Engine

_M = TypeVar("_M", bound="Model")


class Model:
    """A model on a device, with an engine that serves many requests at a time."""

    def __init__(
        self,
        model: Union[str, os.PathLike[str]],
        *,
        device: str = "auto",
        tensor_parallel_size: int = 1,
        activations: Optional[int] = None,
        max_model_len: Optional[int] = None,
        max_num_seqs: Optional[int] = None,
        kv_dtype: Optional[str] = None,
        threads: Optional[int] = None,
        prompt_chunk: Optional[int] = None,
    ) -> None:
        """Loads a model.

        model: a GGUF file (of a split model, its first part), or "demo" for the embedded demo model.
        device: auto, cpu, gpu, gpu:N, cuda, cuda:N, metal, vulkan or dx12; or several, such as "cuda:0,1".
        tensor_parallel_size: devices that run the model together, each with a part of it: "cpu", "cuda" or several.
        activations: bits of the activations that a CPU multiplies quantised weights with, 8 (as without it) or 16.
        max_model_len: tokens of the longest sequence; the smaller of the model's and 4096 without it.
        max_num_seqs: sequences that run together; by machine and memory without it.
        kv_dtype: element type of the KV cache, "f16" (as without it) or "f32".
        threads: CPU threads; the physical cores without it.
        prompt_chunk: most prompt tokens of one sequence in a step; 512 without it.
        """
        self._arguments: dict[str, Any] = {
            "model": os.fspath(model),
            "device": device,
            "activations": activations,
            "max_model_len": max_model_len,
            "max_num_seqs": max_num_seqs,
            "kv_dtype": kv_dtype,
            "threads": threads,
            "prompt_chunk": prompt_chunk,
            "tensor_parallel_size": tensor_parallel_size,
        }
        least_of = {"tensor_parallel_size": 1, "max_model_len": 1, "max_num_seqs": 1, "threads": 1, "prompt_chunk": 1, "activations": 8}
        for name, least in least_of.items():
            found = self._arguments[name]
            if found is not None and found < least:
                raise ValueError(f"{name}: expected at least {least}, found {found}")
        self._engine = Engine(**self._arguments)
        for note in self._engine.notes:
            warnings.warn(note, stacklevel=2)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (type(self), self._arguments)

    def __repr__(self) -> str:
        given = (f"{name}={value!r}" for name, value in self._arguments.items() if value is not None)
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def device(self) -> str:
        """The device, in words."""
        return self._engine.device

    @property
    def activations(self) -> Optional[int]:
        """Bits of the activations that quantised weights are multiplied with, on a CPU."""
        return self._engine.activations

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest sequence, prompt and answer together."""
        return self._engine.max_model_len

    @property
    def max_num_seqs(self) -> int:
        """Sequences that run together."""
        return self._engine.max_num_seqs

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of the KV cache for each token of a sequence."""
        return self._engine.kv_bytes_per_token

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""
        return self._engine.vocab_size

    @property
    def eos_token_ids(self) -> list[int]:
        """Tokens after which generation ends."""
        return self._engine.eos_token_ids

    def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a text, with those that the model's file puts around a prompt."""
        return self._engine.tokenize(text, add_special_tokens)

    def detokenize(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens."""
        return self._engine.detokenize(read_token_ids(token_ids), skip_special_tokens)

    def forward_batch(self, tokens: Sequence[Iterable[int]]) -> npt.NDArray[np.float32]:
        """Runs sequences of token ids: `[sequences, vocab_size]`, the logits of each one's last token.

        They have a KV cache of their own, for `max_num_seqs` sequences if that was given, otherwise for 8; of more
        sequences, so many run at a time. The numbers are the same however many run together.
        """
        logits = self._engine.forward_batch([read_token_ids(sequence) for sequence in tokens])
        return np.frombuffer(logits, dtype=np.float32).reshape(len(tokens), self.vocab_size)


def _load(cls: type[_M], arguments: dict[str, Any]) -> _M:
    return cls(**arguments)
