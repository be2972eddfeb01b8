"""Requests, the program's answers to them, and how processes are killed: what the checks of this folder share."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "examples/python"
RUSTORCH = os.environ.get("RUSTORCH", str(ROOT / "target/release/rustorch"))
CONTEXT = 512


def write_requests(path: Path, count: int, is_table: bool) -> list[dict[str, Any]]:
    """Lines of all kinds; of a table, all with the same columns."""
    draw = random.Random(count)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        prompt = " ".join(draw.choices(["Once", "upon", "a", "time", "the", "little", "dog", "ran", "and"], k=draw.randint(1, 40)))
        row = {"custom_id": f"row {number}", "prompt": prompt, "max_tokens": draw.randint(8, 48), "temperature": draw.choice([0.0, 0.8])}
        if not is_table and number % 7 == 0:
            del row["custom_id"]
        if not is_table and number % 50 == 3:
            row["n"] = 0
        if not is_table and number % 31 == 5:
            row = {"custom_id": row["custom_id"], "input": prompt} if "custom_id" in row else {"input": prompt}
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def program(*arguments: Any) -> str:
    """The program's standard output; it must succeed."""
    return subprocess.run([RUSTORCH, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def one_run(requests: Path, output: Path, *arguments: Any) -> str:
    """SHA-256 of an uninterrupted run of the program."""
    options = ["-q", "--device", "cpu", "-c", CONTEXT, "--fail-on", "never", "--reproducible"]
    program("batch", *options, "-i", requests, "-o", output, *arguments)
    return hashlib.sha256(output.read_bytes()).hexdigest()


def texts(output: Path) -> dict[str, str]:
    """Of a run's results, by id."""
    results = map(json.loads, output.read_text().splitlines())
    return {result["custom_id"]: result["response"]["body"]["choices"][0]["text"] for result in results}


def texts_of_folder(folder: Path) -> dict[str, str]:
    """Of JSON lines with custom_id and text; no id may be there twice."""
    found: dict[str, str] = {}
    for path in folder.rglob("*.json"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert row["custom_id"] not in found, f"{row['custom_id']}: expected it once, found it twice"
            found[row["custom_id"]] = row["text"]
    return found


def start(example: str, *arguments: Any) -> "subprocess.Popen[bytes]":
    """An example in a process of its own."""
    return subprocess.Popen([sys.executable, EXAMPLES / example, *map(str, arguments)])


def kill(pid: int) -> bool:
    """kill -9; whether the process was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def processes(parent: Optional[int], title: str) -> list[int]:
    """Ids of the processes below `parent` whose command line has this text."""
    below, parents = {parent}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(folder.name)] = (int(stat.rpartition(")")[2].split()[1]), command)
    while True:
        more = {pid for pid, (above, _) in parents.items() if above in below} - below
        if not more:
            return [pid for pid in below if pid in parents and title in parents[pid][1]]
        below |= more
