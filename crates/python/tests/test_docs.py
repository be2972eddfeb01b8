"""The examples of the documentation run as they stand, those of a page one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", ["docs/python.md", "crates/python/README.md"])
def test_examples_run(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    examples = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert examples
    names: dict[str, Any] = {}
    for example in examples:
        # With the page's own line numbers.
        lines = text[: example.start(1)].count("\n")
        exec(compile("\n" * lines + example[1], page, "exec"), names)


def test_the_packages_example_runs() -> None:
    import doctest

    import rustorch_llama

    results = doctest.testmod(rustorch_llama)
    assert results.attempted >= 4 and results.failed == 0
