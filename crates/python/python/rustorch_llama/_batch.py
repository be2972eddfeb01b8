"""Files of requests: the arguments of `LLM.run_batch` and `LLM.run_job_part`, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Union

Path_ = Union[str, "os.PathLike[str]"]
Shard = Union[str, tuple[int, int], None]


class BatchOptions(TypedDict, total=False):
    """What the lines are answered with. The results depend on these, so a call that goes on must have the same."""

    seed: int
    """With which the seeds of lines are derived that have none (0)."""
    model_name: Union[str, Sequence[str]]
    """Name of the model, which lines may name, or it and its aliases; the file's name without it."""
    date: str
    """YYYY-MM-DD: the day that chat templates are told."""
    strict_fields: bool
    """Refuse lines in OpenAI's format with fields that nobody knows."""
    max_tokens: int
    """For lines that do not say it, as are the following."""
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    stop: Union[str, Sequence[str]]
    chat: bool
    """Make the prompt of a plain line a user's message."""
    system: str
    """System message of chats that begin with none."""
    window: int
    """Most lines in memory at once; 4 times `max_num_seqs` without it. No result depends on it."""


_DEFAULTS: dict[str, Any] = {
    "part": None,
    "shard": "1/1",
    "reproducible": False,
    "ordered": False,
    "retry_errors": False,
    "overwrite": False,
    "seed": 0,
    "window": None,
    "model_name": (),
    "date": None,
    "strict_fields": False,
    "input_format": None,
    "prompt_column": "prompt",
    "max_tokens": None,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "min_p": None,
    "stop": (),
    "chat": False,
    "system": None,
}


def native_options(
    model: Path_, paths: tuple[Path_, Union[Path_, None]], shard: Shard = None, **given: Any
) -> dict[str, Any]:
    """The native options of a batch of a model: all of them."""
    unknown = next((name for name in given if name not in _DEFAULTS), None)
    if unknown is not None:
        raise TypeError(f"{unknown}: expected an option of a batch, found one that nobody knows")
    options = {**_DEFAULTS, **given}
    names = options.pop("model_name")
    options["model_names"] = ([names] if isinstance(names, str) else list(names)) or [Path(model).stem]
    options["stop"] = [options["stop"]] if isinstance(options["stop"], str) else list(options["stop"])
    options["shard"] = _shard(shard)
    options["paths"] = paths
    found = options["input_format"]
    if found not in (None, "jsonl", "text", "csv"):
        raise ValueError(f"input_format: expected jsonl, text or csv, found {found!r}")
    if options["reproducible"] and options["retry_errors"]:
        raise ValueError("retry_errors: expected False in a reproducible batch (errors would come again), found True")
    check_seed(options["seed"])
    for name, least in [("window", 1), ("max_tokens", 1), ("top_k", 0), ("part", 0)]:
        found = options[name]
        if found is not None and found < least:
            raise ValueError(f"{name}: expected at least {least}, found {found}")
    return options


def check_seed(seed: int) -> int:
    """Refuses what is no seed of a batch."""
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed: expected a whole number of 64 bits, 0 or more, found {seed}")
    return seed


def _shard(shard: Shard) -> str:
    if shard is None:
        return "1/1"
    return shard if isinstance(shard, str) else "/".join(map(str, shard))
