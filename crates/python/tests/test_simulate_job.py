"""bench/simulate_job.py: what can be computed by hand, and the parts of a real split."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("simulate_job", ROOT / "bench/simulate_job.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulate_job"] = module
    spec.loader.exec_module(module)
    return module


sim = load()


def machines(**fields: Any) -> Any:
    alike = {"count": 2, "rows_per_second": 10.0, "part_seconds": 5.0, "load_seconds": 100.0, "slow_share": 0.0}
    return sim.Machines(**{**alike, **fields})


def test_without_failures_it_is_arithmetic() -> None:
    # 3 parts of 100 rows on 2 machines: 100 s of loading, and two parts of 5 + 10 s one after the other.
    outcome = sim.simulate([100, 100, 100], machines())
    assert (outcome.seconds, outcome.failures, outcome.lost_rows) == (130.0, 0, 0)
    assert outcome.last_part_seconds == 15.0
    assert sim.simulate([100] * 3, machines(keeps_model=False)).seconds == 100 + 2 * 115
    # Half of the machines at half speed: the fast one takes two parts while the slow one takes one.
    slow = machines(slow_share=0.5, slow_speed=0.5)
    assert 124 < sim.simulate([100] * 3, slow).seconds < 136


def test_failures_lose_what_ran_and_nothing_else() -> None:
    failing = machines(mean_hours_between_failures=0.5, rows_in_flight=7, notice_seconds=10.0, repair_seconds=60.0)
    parts = [1000] * 50
    outcome, calm = sim.simulate(parts, failing, seed=3), sim.simulate(parts, machines())
    assert outcome.failures > 0 and outcome.seconds > calm.seconds
    assert 0 < outcome.lost_rows <= 7 * outcome.failures
    assert outcome == sim.simulate(parts, failing, seed=3) != sim.simulate(parts, failing, seed=4)


def test_parts_are_those_of_a_split(rustorch: str, tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    requests.write_text('{"prompt": "A"}\n' * 103)
    subprocess.run([rustorch, "split", "-q", requests, "-o", tmp_path / "job", "--rows", "10"], check=True)
    assert sim.of_job(tmp_path / "job") == sim.plan(103, 10) == [10] * 10 + [3]
    with pytest.raises(ValueError, match="at most 100000 parts"):
        sim.plan(1_000_000, 9)
