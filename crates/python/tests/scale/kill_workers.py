"""Workers of a job are killed at random until it is done; the results are the bytes of one uninterrupted run.

    python kill_workers.py PARTS ROWS_PER_PART     with the wheel installed; RUSTORCH is the program

Twice, with other parts, batch sizes and chunks. Three workers run at a time, each with sizes of its own.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import CONTEXT, kill, one_run, program, start, write_requests

# Of the workers: batch sizes and chunks.
SETTINGS = [[(1, 3), (16, 512), (7, 33)], [(64, 16), (5, 1), (32, 128)]]


def main() -> None:
    num_parts, rows_per_part = map(int, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = folder / "requests.jsonl"
        write_requests(requests, num_parts * rows_per_part, is_table=False)
        expected = one_run(requests, folder / "whole.jsonl")
        for index, sizes in enumerate(SETTINGS):
            job, merged = folder / f"job{index}", folder / f"merged{index}.jsonl"
            # The second time other parts.
            program("split", "-q", requests, "-o", job, "--rows", rows_per_part - 3 * index)
            began = time.monotonic()
            kills, amid = run_and_kill(job, sizes, least=max(3, num_parts // 5))
            seconds = time.monotonic() - began
            program("verify", "-q", job, "--device", "cpu", "-c", CONTEXT, "--sample", 20)
            found = program("merge", "-q", job, "-o", merged).split()[-1]
            assert found == expected, f"expected SHA-256 {expected}, found {found}"
            print(
                f"{num_parts * rows_per_part} rows in {len(list(job.glob('part-*')))} parts, batch sizes and chunks {sizes}: "
                f"{kills} kills, {amid} amid a part, {seconds:.0f} s: the bytes of one run, {found}",
                flush=True,
            )


def run_and_kill(job: Path, sizes: "list[tuple[int, int]]", least: int) -> "tuple[int, int]":
    """Runs workers until all are done. Returns how often one was killed, and how often amid a part."""
    draw = random.Random(len(sizes) * least)

    def worker(index: int) -> "subprocess.Popen[bytes]":
        num_seqs, chunk = sizes[index]
        sizes_of_it = ["--max-num-seqs", num_seqs, "--prompt-chunk", chunk, "--max-model-len", CONTEXT]
        return start("job_worker.py", job, "--worker", f"{index}/{len(sizes)}", "--device", "cpu", *sizes_of_it)

    def on_disk(index: int) -> int:
        """Bytes of results of the part that a worker has begun."""
        sizes_of_parts = [0]
        for path in job.glob("result-*.unfinished"):
            if int(path.name[7:12]) % len(sizes) == index:
                try:
                    sizes_of_parts.append(path.stat().st_size)
                except FileNotFoundError:
                    pass  # It has just got its name.
        return sum(sizes_of_parts)

    running = {index: worker(index) for index in range(len(sizes))}
    kills = amid = 0
    before = dict.fromkeys(running, 0)
    deadline = time.monotonic() + 3600
    while running:
        assert time.monotonic() < deadline, "expected the job to be done in an hour"
        time.sleep(draw.uniform(0.02, 0.2))
        for index, process in list(running.items()):
            if process.poll() is not None:
                assert process.returncode == 0, f"a worker ended with {process.returncode}"
                del running[index]
                continue
            # Mostly those that have new results of a part that is not complete, now and then others, also while they load.
            has_new = on_disk(index) not in (0, before[index])
            # Until enough were killed, any may be, so that a fast machine does not finish before.
            chances = (1.0, 0.1) if kills < least else (0.25, 0.005)
            if draw.random() < (chances[0] if has_new else chances[1]):
                kill(process.pid)
                process.wait()
                kills += 1
                before[index] = on_disk(index)
                amid += before[index] > 0
                running[index] = worker(index)
    # A few parts may be too short to be met amid one.
    assert kills >= least and (amid > 0 or least < 10), f"expected {least} kills, some amid a part, found {kills} and {amid}"
    return kills, amid


if __name__ == "__main__":
    main()
