"""Files of requests: the bytes of the program's results, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from rustorch_llama import LLM, EngineError, SamplingParams, row_seed

CONTEXT = "512"

LINES: list[Any] = [
    {"custom_id": "a", "prompt": "Once upon a time", "max_tokens": 20},
    {"custom_id": "b", "url": "/v1/completions", "method": "POST", "body": {"prompt": "The dog", "n": 2, "odd": 1}},
    {"custom_id": "c", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "temperature": 0.5},
    {"custom_id": "d", "input": ["One day", "The bird"]},
    {"prompt": "A line without an id", "max_tokens": 5},
    {"custom_id": "e", "prompt": "wrong", "n": 0},
    {"custom_id": "f", "prompt": "Tom said", "max_tokens": 12, "seed": 7},
] + [{"custom_id": f"row {i}", "prompt": f"Story {i}:" + " and then" * (i % 23), "max_tokens": 3 + i % 9} for i in range(60)]


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def program(rustorch: str, *arguments: Any) -> str:
    """The program's standard output."""
    command = [rustorch, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def batch(rustorch: str, *arguments: Any) -> None:
    program(rustorch, "batch", "-q", "--device", "cpu", "-c", CONTEXT, "--fail-on", "never", *arguments)


# Options of a call, and the same on the command line.
OPTIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"seed": 5, "temperature": 0.1, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "max_tokens": 7, "stop": ["."]},
     "--seed 5 --temperature 0.1 --top-p 0.9 --top-k 40 --min-p 0.05 -n 7 --stop .".split()),
    ({"chat": True, "system": "Be brief.", "model_name": ["tiny", "demo"], "date": "2026-11-30", "strict_fields": True},
     ["--chat", "--system", "Be brief.", "--model-name", "tiny", "--model-name", "demo", "--date", "2026-11-30", "--strict-fields"]),
    ({"shard": (2, 3)}, ["--shard", "2/3"]),
]  # fmt: skip


@pytest.mark.parametrize("options, arguments", OPTIONS)
def test_results_are_the_bytes_of_the_program(
    llm: LLM, rustorch: str, requests: Path, tmp_path: Path, options: dict[str, Any], arguments: list[str]
) -> None:
    expected, found = tmp_path / "expected.jsonl", tmp_path / "found.jsonl"
    batch(rustorch, "-i", requests, "-o", expected, "--reproducible", "--batch-size", "3", *arguments)
    with pytest.warns(UserWarning, match="odd") if "strict_fields" not in options else nullcontext():
        summary = llm.run_batch(requests, found, reproducible=True, use_tqdm=False, **options)
    assert found.read_bytes() == expected.read_bytes()
    assert manifest(found) == manifest(expected)
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    errors = [line for line in lines if line["response"]["status_code"] != 200]
    assert (summary.results, summary.errors, summary.found) == (len(lines), len(errors), 0)
    assert repr(summary).startswith(f"BatchSummary(results={len(lines)}, errors={len(errors)}, found=0, prompt_tokens=")
    assert [custom_id for custom_id, _ in summary.first_errors] == [line["custom_id"] for line in errors]
    # The command goes on where the call ended, and the call where the command did.
    whole = found.read_bytes()
    found.write_bytes(whole[: len(whole) // 2])
    batch(rustorch, "-i", requests, "-o", found, "--reproducible", *arguments)
    assert found.read_bytes() == whole
    found.write_bytes(whole[: len(whole) // 2])
    again = llm.run_batch(requests, found, reproducible=True, use_tqdm=False, **options)
    assert found.read_bytes() == whole and 0 < again.found < again.results == summary.results


def test_tables_have_the_bytes_of_the_program(llm: LLM, rustorch: str, requests: Path, tmp_path: Path) -> None:
    for name in ("out.csv", "out.txt"):
        (tmp_path / "expected").mkdir(exist_ok=True)
        expected, found = tmp_path / "expected" / name, tmp_path / name
        batch(rustorch, "-i", requests, "-o", expected, "--reproducible")
        llm.run_batch(requests, found, reproducible=True, use_tqdm=False)
        assert found.read_bytes() == expected.read_bytes() != b""


def manifest(output: Path) -> Any:
    return json.loads(Path(f"{output}.run.json").read_bytes())


def test_results_without_reproducible_have_the_same_answers(
    llm: LLM, rustorch: str, requests: Path, tmp_path: Path
) -> None:
    expected, found = tmp_path / "expected.jsonl", tmp_path / "found.jsonl"
    batch(rustorch, "-i", requests, "-o", expected)
    with pytest.warns(UserWarning, match='the field "odd" is not known'):
        llm.run_batch(requests, found, ordered=True, use_tqdm=False)

    def answers(path: Path) -> dict[str, Any]:
        rows = map(json.loads, path.read_text().splitlines())
        return {row["custom_id"]: without_time(row) for row in rows}

    def without_time(row: Any) -> Any:
        body = row["response"]["body"]
        body.pop("created", None)
        body.get("usage", {}).pop("prompt_tokens_details", None)
        return row

    assert answers(found) == answers(expected) and manifest(found) == manifest(expected)
    ids = [json.loads(line)["custom_id"] for line in found.read_text().splitlines()]
    assert ids == [line.get("custom_id", "line-5") for line in LINES]


def test_texts_and_tables_are_read(llm: LLM, rustorch: str, tmp_path: Path) -> None:
    texts, table = tmp_path / "prompts.txt", tmp_path / "odd.name"
    texts.write_text("Once upon a time\n\nThe dog\n")
    table.write_text("custom_id,question\nx,Why?\n")
    for path, given, arguments in [
        (texts, {}, []),
        (table, {"input_format": "csv", "prompt_column": "question"}, "--input-format csv --prompt-column question".split()),
    ]:
        expected, found = Path(f"{path}.expected"), Path(f"{path}.found")
        batch(rustorch, "-i", path, "-o", expected, "--reproducible", "-n", "5", *arguments)
        llm.run_batch(path, found, reproducible=True, max_tokens=5, use_tqdm=False, **given)  # type: ignore[arg-type]
        assert found.read_bytes() == expected.read_bytes()


def test_parts_of_a_job_are_those_of_one_run(rustorch: str, requests: Path, tmp_path: Path) -> None:
    job, whole, merged = tmp_path / "job", tmp_path / "whole.jsonl", tmp_path / "merged.jsonl"
    batch(rustorch, "-i", requests, "-o", whole, "--reproducible")
    program(rustorch, "split", "-q", requests, "-o", job, "--rows", "15")
    workers = [LLM("demo", device="cpu", max_model_len=int(CONTEXT), max_num_seqs=n, prompt_chunk=c) for n, c in [(1, 3), (9, 64)]]
    with pytest.warns(UserWarning):
        results = [workers[part % 2].run_job_part(job, part, use_tqdm=False) for part in range(3)]
    assert [summary and summary.results for summary in results] == [15, 15, 15]
    assert workers[1].run_job_part(job, 0) is None
    # The program takes a part too, and finds all well.
    batch(rustorch, "--job", job, "--part", "3")
    workers[0].run_job_part(job, 4)
    program(rustorch, "verify", "-q", job, "--device", "cpu", "-c", CONTEXT, "--sample", "9")
    program(rustorch, "merge", "-q", job, "-o", merged)
    assert merged.read_bytes() == whole.read_bytes()


def test_a_worker_that_differs_is_refused(llm: LLM, rustorch: str, requests: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    program(rustorch, "split", "-q", requests, "-o", job, "--rows", "50")
    with pytest.raises(ValueError, match="expected a part from 0 to 1, found part 2"):
        llm.run_job_part(job, 2)
    llm.run_job_part(job, 1, use_tqdm=False)
    fixed = json.loads((job / "run.json").read_bytes())
    with pytest.raises(ValueError, match="fixed by the first worker, this one differs: options.seed: expected 0, found 1"):
        llm.run_job_part(job, 0, seed=1)
    other = LLM("demo", device="cpu", max_model_len=int(CONTEXT), max_num_seqs=2, activations=16)
    with pytest.raises(ValueError, match="options.activations: expected none, found 16"):
        other.run_job_part(job, 0)
    (job / "run.json").write_text(json.dumps({**fixed, "device": "NVIDIA H200, cuda"}))
    with pytest.raises(ValueError, match="device: expected NVIDIA H200, cuda, found cpu"):
        llm.run_job_part(job, 0)
    assert not (job / "result-00000.jsonl").exists()


def test_what_is_wrong_is_named(llm: LLM, requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    for error, message, given in [
        (ValueError, "shard: expected I/N with I from 1 to N", {"shard": "5/4"}),
        (ValueError, "date: expected a day", {"date": "yesterday"}),
        (ValueError, "temperature: expected a number, 0 or more, found -1", {"temperature": -1}),
        (ValueError, "top_p: expected a number from 0 to 1, found 2", {"top_p": 2}),
        (ValueError, "max_tokens: expected at least 1, found 0", {"max_tokens": 0}),
        (ValueError, "stop: expected texts", {"stop": [""]}),
        (ValueError, "seed: expected a whole number of 64 bits, 0 or more, found -1", {"seed": -1}),
        (ValueError, "retry_errors: expected False", {"reproducible": True, "retry_errors": True}),
        (ValueError, "input_format: expected jsonl, text or csv, found 'parquet'", {"input_format": "parquet"}),
        (TypeError, "tempreature: expected an option", {"tempreature": 1}),
    ]:
        with pytest.raises(error, match=message):
            llm.run_batch(requests, output, **given)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="absent"):
        llm.run_batch(tmp_path / "absent.jsonl", output)
    with pytest.raises(ValueError, match="expected an output file other than"):
        llm.run_batch(requests, requests)
    assert not output.exists()
    llm.run_batch(requests, output, use_tqdm=False, max_tokens=4, strict_fields=True)
    with pytest.raises(ValueError, match=r"results are of another run: options.seed(.|\n)*overwrite=True"):
        llm.run_batch(requests, output, seed=1, max_tokens=4, strict_fields=True)
    llm.run_batch(requests, output, seed=1, max_tokens=4, strict_fields=True, overwrite=True, use_tqdm=False)
    summary = llm.run_batch(
        requests, output, seed=1, max_tokens=4, strict_fields=True, retry_errors=True, use_tqdm=False
    )
    assert summary.errors == 2 and summary.found == summary.results - 2


def test_the_bar_counts_what_was_there(llm: LLM, requests: Path, tmp_path: Path) -> None:
    class Bar:
        def __init__(self, total: int, **_: Any) -> None:
            self.total, self.n, self.closed = total, 0, False
            bars.append(self)

        def update(self, n: int) -> None:
            self.n += n

        def close(self) -> None:
            self.closed = True

    bars: list[Bar] = []
    for _ in range(2):
        llm.run_batch(requests, tmp_path / "results.jsonl", strict_fields=True, use_tqdm=Bar)
    assert [(bar.total, bar.n, bar.closed) for bar in bars] == [(len(LINES), len(LINES), True)] * 2


def test_ctrl_c_leaves_what_goes_on(llm: LLM, rustorch: str, tmp_path: Path) -> None:
    requests, output, whole = (tmp_path / name for name in ("requests.jsonl", "results.jsonl", "whole.jsonl"))
    lines = [{"custom_id": str(i), "prompt": "Once", "max_tokens": 100, "ignore_eos": True} for i in range(2000)]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def interrupt(done: int, total: Any) -> None:
        if 0 < done < 2000 and not interrupted:
            interrupted.append(done)
            os.kill(os.getpid(), signal.SIGINT)

    class Bar:
        def __init__(self, total: int, **_: Any) -> None:
            self.n, self.total = 0, total

        def update(self, n: int) -> None:
            self.n += n
            interrupt(self.n, self.total)

        def close(self) -> None:
            pass

    interrupted: list[int] = []
    before = llm._engine.num_cancelled
    with pytest.raises(KeyboardInterrupt):
        llm.run_batch(requests, output, reproducible=True, use_tqdm=Bar)
    found = len(output.read_bytes().splitlines())
    assert interrupted and interrupted[0] <= found < 2000
    # Other calls are answered, and what was running is gone.
    llm.generate("Once", SamplingParams(max_tokens=1), use_tqdm=False)
    assert llm._engine.num_cancelled > before
    # A shorter file, so that it takes less time: its lines are the first ones.
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines[: found + 20]))
    batch(rustorch, "-i", requests, "-o", whole, "--reproducible")
    summary = llm.run_batch(requests, output, reproducible=True, use_tqdm=False)
    assert summary.found == found and output.read_bytes() == whole.read_bytes()


def test_other_threads_run_and_one_output_has_one_writer(llm: LLM, requests: Path, tmp_path: Path) -> None:
    job_done = threading.Event()
    errors: list[BaseException] = []

    def run(name: str) -> None:
        try:
            llm.run_batch(requests, tmp_path / name, strict_fields=True, reproducible=True, use_tqdm=Hold)
        except BaseException as error:
            errors.append(error)

    class Hold:
        """Holds the first run where it is until the second was refused."""

        def __init__(self, **_: Any) -> None:
            pass

        def update(self, n: int) -> None:
            job_done.wait(60)

        def close(self) -> None:
            pass

    first = threading.Thread(target=run, args=["same"])
    first.start()
    while not (tmp_path / "same.run.json").exists():
        pass
    with pytest.raises(EngineError, match="found it locked by another process"):
        llm.run_batch(requests, tmp_path / "same", strict_fields=True, reproducible=True)
    job_done.set()
    first.join(60)
    assert not errors and len((tmp_path / "same").read_bytes().splitlines()) == len(LINES)


def test_a_row_with_an_id_is_the_same_in_any_batch(llm: LLM, rustorch: str, tmp_path: Path) -> None:
    requests, output = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    rows: list[dict[str, Any]] = [{"custom_id": f"row {i}", "prompt": f"Once upon {i}", "max_tokens": 16} for i in range(12)]
    chats: list[dict[str, Any]] = [
        {"custom_id": f"chat {i}", "messages": [{"role": "user", "content": f"Tell {i}"}], "max_tokens": 16} for i in range(4)
    ]
    requests.write_text("".join(json.dumps(line) + "\n" for line in rows + chats))
    batch(rustorch, "-i", requests, "-o", output, "--reproducible")
    bodies = [json.loads(line)["response"]["body"]["choices"][0] for line in output.read_text().splitlines()]
    expected = [body["text"] if "text" in body else body["message"]["content"] for body in bodies]
    params = SamplingParams(max_tokens=16)
    ids = [row["custom_id"] for row in rows]
    prompts = [row["prompt"] for row in rows]

    def texts(outputs: Any) -> list[str]:
        return [output.outputs[0].text for output in outputs]

    outputs = llm.generate(prompts, params, use_tqdm=False, ids=ids)
    assert texts(outputs) == expected[:12] and [each.request_id for each in outputs] == ids
    assert texts(llm.generate(prompts[5], params, use_tqdm=False, ids=[ids[5]])) == [expected[5]]
    seeds = [SamplingParams(max_tokens=16, seed=row_seed(each)) for each in ids]
    assert texts(llm.generate(prompts, seeds, use_tqdm=False)) == expected[:12]
    talks: Any = [chat["messages"] for chat in chats]
    outputs = llm.chat(talks, params, use_tqdm=False, ids=[chat["custom_id"] for chat in chats])
    assert [text.strip() for text in texts(outputs)] == [text.strip() for text in expected[12:]]
    # A negative control, and what is refused.
    assert texts(llm.generate(prompts, params, use_tqdm=False, ids=ids[::-1])) != expected[:12]
    assert row_seed("a") == 4_644_417_185_603_328_019 and row_seed("a", 1) != row_seed("a")
    with pytest.raises(ValueError, match="ids: expected 12, one for each prompt, found 1"):
        llm.generate(prompts, params, ids=["a"])
    with pytest.raises(ValueError, match="ids: expected a list of strings"):
        llm.generate(prompts[0], params, ids="a")


def test_a_model_is_pickled_with_its_options(llm: LLM) -> None:
    other = LLM("demo", device="cpu", max_model_len=64, max_num_seqs=2, prompt_chunk=7)
    assert "prompt_chunk=7" in repr(pickle.loads(pickle.dumps(other)))
