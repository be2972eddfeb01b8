"""A model for all tests: the embedded demo model on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rustorch_llama import LLM

ROOT = Path(__file__).parents[3]
CONTEXT = 512


@pytest.fixture(scope="session")
def llm() -> LLM:
    return LLM("demo", device="cpu", max_model_len=CONTEXT, max_num_seqs=16)


@pytest.fixture(scope="session")
def rustorch() -> str:
    """The program, which .ci/python has built before."""
    path = os.environ.get("RUSTORCH", str(ROOT / "target/release/rustorch"))
    assert os.access(path, os.X_OK), f"{path}: build the program with `cargo build --release`, or set RUSTORCH"
    return path
