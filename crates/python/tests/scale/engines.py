"""The examples for Ray Data, Daft and Spark give the answers of `rustorch batch --reproducible` for the same rows.

    python engines.py ROWS ray daft spark     with the wheel and those installed; RUSTORCH is the program

Actors of Ray Data are killed while they run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import kill, one_run, processes, start, texts, texts_of_folder, write_requests


def main() -> None:
    rows, engines = int(sys.argv[1]), sys.argv[2:]
    # Nothing is to be written into the home folder, and nothing reported.
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", DO_NOT_TRACK="true", DAFT_ANALYTICS_ENABLED="0")
    # Spark would take the first `python3` of the path.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = folder / "requests.jsonl"
        write_requests(requests, rows, is_table=True)
        one_run(requests, folder / "whole.jsonl")
        expected = texts(folder / "whole.jsonl")
        assert len(expected) == rows
        for engine in engines:
            began = time.monotonic()
            kills = {"ray": with_ray, "daft": with_daft, "spark": with_spark}[engine](requests, folder / engine)
            found = texts_of_folder(folder / engine)
            wrong = [row for row in expected if found.get(row) != expected[row]]
            assert found == expected, f"{engine}: expected the program's {rows} answers, found {len(found)}, wrong: {wrong[:3]}"
            seconds = time.monotonic() - began
            # Few rows may be answered before one is found at it.
            assert engine != "ray" or rows < 1000 or kills > 0, "expected to kill an actor while it answers, found none"
            print(f"{engine}: {rows} rows, {kills} kills, {seconds:.0f} s: the program's answers", flush=True)


def with_ray(requests: Path, output: Path) -> int:
    """Kills actors as they answer, three times at most."""
    process = start("ray_data.py", requests, output, "--device", "cpu", "--actors", 2, "--batch-size", 16)
    draw, kills = random.Random(0), 0
    while process.poll() is None:
        time.sleep(draw.uniform(0.02, 0.3))
        # `ray::MapWorker(MapBatches(Answer)).submit`: it is answering.
        busy = processes(process.pid, "MapWorker(MapBatches(Answer)).submit")
        if busy and kills < 3:
            kills += kill(draw.choice(busy))
            time.sleep(1)
    assert process.returncode == 0
    return kills


def with_daft(requests: Path, output: Path) -> int:
    process = start("daft_udf.py", requests, output, "--device", "cpu", "--processes", 2, "--batch-size", 16)
    assert process.wait() == 0
    return 0


def with_spark(requests: Path, output: Path) -> int:
    process = start("spark.py", requests, output, "demo")
    assert process.wait() == 0
    return 0


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr}")
