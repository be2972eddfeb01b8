#!/usr/bin/env python3
"""How long a job of parts takes on many machines, some slow and some failing: a simulation, event by event.

    bench/simulate_job.py                    the table of docs/scale.md
    bench/simulate_job.py --job DIR          the parts of a job that `rustorch split` made

A machine takes the next part when it is free, as an array of SLURM or an indexed job of Kubernetes gives it out. A part takes
its rows at the machine's speed, and each part costs once what its beginning and its end cost, when the batch is not full. A machine
that fails is back after a while. Its part waits until the failure is noticed, then any machine goes on with the rows that are not
on disk: all but those that were running. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

# crates/batch/src/split.rs
MAX_PARTS = 100_000
# Of which the table has the median.
DRAWS = 5


@dataclass(frozen=True)
class Machines:
    """What they are like. Times are in seconds."""

    count: int = 1000
    rows_per_second: float = 2000 / 165.5
    """Of a machine at speed 1 with a full batch."""
    part_seconds: float = 20.0
    """What each part costs beside its rows: opening it, and the end, when the batch runs empty."""
    load_seconds: float = 60.0
    """From the start of a worker to its first row; a worker is started for each part unless it keeps its model."""
    keeps_model: bool = True
    rows_in_flight: int = 256
    """Rows that a failure loses."""
    slow_share: float = 0.02
    """Share of the machines that run at `slow_speed`; the others at 0.97 to 1.03."""
    slow_speed: float = 0.5
    mean_hours_between_failures: Optional[float] = None
    """Of one machine."""
    notice_seconds: float = 120.0
    repair_seconds: float = 1800.0


@dataclass(frozen=True)
class Outcome:
    seconds: float
    failures: int
    lost_rows: int
    """That were computed again."""
    last_part_seconds: float
    """From when the first machine had nothing left to do to the end."""


def plan(rows: int, rows_per_part: int) -> list[int]:
    """Rows of the parts that `rustorch split --rows` makes."""
    full, rest = divmod(rows, rows_per_part)
    parts = [rows_per_part] * full + [rest] * (rest > 0)
    if len(parts) > MAX_PARTS:
        raise ValueError(f"rows of a part: expected so many that there are at most {MAX_PARTS} parts, found {len(parts)}")
    return parts


def of_job(folder: Path) -> list[int]:
    """Rows of the parts of a job."""
    return [part["rows"] for part in json.loads((folder / "job.json").read_bytes())["parts"]]


def simulate(parts: Sequence[int], machines: Machines, seed: int = 0) -> Outcome:
    """Runs the parts to their end."""
    draw = random.Random(seed)
    num_slow = round(machines.slow_share * machines.count)
    speeds = [machines.slow_speed] * num_slow
    speeds += [draw.uniform(0.97, 1.03) if machines.slow_share else 1.0 for _ in range(machines.count - num_slow)]
    draw.shuffle(speeds)
    hours = machines.mean_hours_between_failures
    lifetime = (lambda: draw.expovariate(1 / (hours * 3600))) if hours else (lambda: float("inf"))
    fails_at = [machines.load_seconds + lifetime() for _ in speeds]
    # Those that wait for a machine: when they may be given out, their number, their rows. Parts that failed come as they are noticed.
    waiting = [(0.0, number, float(rows)) for number, rows in enumerate(parts)]
    free = [(machines.load_seconds, machine) for machine in range(machines.count)]
    heapq.heapify(waiting)
    heapq.heapify(free)
    failures, lost, end, first_idle = 0, 0.0, 0.0, None
    while waiting:
        since, machine = heapq.heappop(free)
        ready, number, rows = heapq.heappop(waiting)
        if first_idle is None and ready > since:
            first_idle = since
        start = max(since, ready)
        if fails_at[machine] <= start:
            # It failed while it had nothing to do.
            failures += 1
            back = fails_at[machine] + machines.repair_seconds + machines.load_seconds
            fails_at[machine] = back + lifetime()
            heapq.heappush(free, (max(back, since), machine))
            heapq.heappush(waiting, (ready, number, rows))
            continue
        extra = machines.part_seconds + (0 if machines.keeps_model else machines.load_seconds)
        speed = machines.rows_per_second * speeds[machine]
        finish = start + extra + rows / speed
        if fails_at[machine] >= finish:
            end = max(end, finish)
            heapq.heappush(free, (finish, machine))
            continue
        failures += 1
        failed = fails_at[machine]
        computed = min(rows, max(0.0, (failed - start - extra) * speed))
        on_disk = max(0.0, computed - machines.rows_in_flight)
        lost += computed - on_disk
        heapq.heappush(waiting, (failed + machines.notice_seconds, number, rows - on_disk))
        back = failed + machines.repair_seconds + machines.load_seconds
        fails_at[machine] = back + lifetime()
        heapq.heappush(free, (back, machine))
    if first_idle is None:
        first_idle = min(min(free)[0], end)
    return Outcome(end, failures, round(lost), max(0.0, end - first_idle))


def median(parts: Sequence[int], machines: Machines) -> Outcome:
    """The middle one of several draws, by time."""
    draws = sorted((simulate(parts, machines, seed) for seed in range(DRAWS)), key=lambda outcome: outcome.seconds)
    return draws[DRAWS // 2]


def table(rows: int, sizes: Sequence[int], machines: Machines) -> str:
    """Job time against rows of a part, without failures and with them."""
    ideal = rows / (machines.rows_per_second * machines.count) / 3600
    alike = Machines(**{**vars(machines), "slow_share": 0.0})
    cases = [alike, machines] + [
        Machines(**{**vars(machines), "mean_hours_between_failures": hours}) for hours in (1000.0, 100.0)
    ]
    lines = [
        f"{rows:.0e} rows on {machines.count:,} machines, {machines.rows_per_second:.2f} rows/s each: at least {ideal:.2f} h.",
        "",
        "| rows of a part | parts | all alike, h | 2 % at half speed, h | and a failure in 1,000 h | in 100 h | failures | rows computed again | end |",
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for size in sizes:
        parts = plan(rows, size)
        outcomes = [median(parts, each) for each in cases]
        last = outcomes[-1]
        hours = " | ".join(f"{outcome.seconds / 3600:.2f}" for outcome in outcomes)
        counts = f"{last.failures:,} | {last.lost_rows:,} | {last.last_part_seconds / 60:.0f} min"
        lines.append(f"| {size:,} | {len(parts):,} | {hours} | {counts} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--rows-per-part", type=int, nargs="+", default=[10_000, 20_000, 50_000, 100_000, 250_000, 1_000_000])
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--rows-per-second", type=float, default=Machines.rows_per_second, help="of a machine")
    parser.add_argument("--job", type=Path, help="a folder with job.json, whose parts are taken")
    arguments = parser.parse_args()
    machines = Machines(count=arguments.machines, rows_per_second=arguments.rows_per_second)
    if arguments.job is None:
        print(table(int(arguments.rows), arguments.rows_per_part, machines))
        return
    parts = of_job(arguments.job)
    outcome = simulate(parts, machines)
    print(f"{sum(parts):,} rows in {len(parts):,} parts: {outcome.seconds:.1f} s, of which the end {outcome.last_part_seconds:.1f} s")


if __name__ == "__main__":
    main()
