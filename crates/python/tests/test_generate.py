"""Prompts in, answers out: the same alone, in a batch and from the command line."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest

from rustorch_llama import LLM, EngineError, RequestOutput, SamplingParams

PROMPTS: list[Any] = [
    "Once upon a time",
    "The little dog",
    "Tom and Lily went to the park. " * 12,
    "A",
    {"prompt": "One day, a girl named Mia"},
    {"prompt_token_ids": [1, 5, 6, 7]},
    [1, 300, 301],
    "In the forest there lived a bear who",
] * 2


def greedy(**fields: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 0, "max_tokens": 12, **fields})


def answers(outputs: list[RequestOutput]) -> list[Any]:
    """Everything about answers but their ids and what was found in the prefix cache."""
    return [(output.prompt_token_ids, output.prompt_logprobs, output.outputs) for output in outputs]


def test_an_answer_is_the_same_alone_and_in_a_batch(llm: LLM) -> None:
    params = [
        SamplingParams(
            temperature=0.0 if index % 2 else 0.9, seed=index, max_tokens=3 + 2 * index, logprobs=3, prompt_logprobs=1
        )
        for index in range(len(PROMPTS))
    ]
    together = llm.generate(PROMPTS, params, use_tqdm=False)
    assert len(together) == 16 and all(output.finished for output in together)
    assert all(output.outputs[0].logprobs and output.prompt_logprobs for output in together)
    alone = [llm.generate(prompt, each, use_tqdm=False)[0] for prompt, each in zip(PROMPTS, params)]
    assert answers(alone) == answers(together)
    # A negative control: another seed is another answer.
    other = params[14].clone()
    other.seed = 99
    assert answers(llm.generate(PROMPTS[14], other, use_tqdm=False)) != answers(together[14:15])


def test_an_answer_is_that_of_the_program(llm: LLM, rustorch: str, tmp_path: Path) -> None:
    texts = [prompt for prompt in PROMPTS[:4] if isinstance(prompt, str)]
    found = llm.generate(texts, greedy(logprobs=2), use_tqdm=False)

    common = ["--model", "demo", "--device", "cpu", "--ctx", "512"]
    generate = [rustorch, "generate", *common, "-q", "--temp", "0", "-n", "12", "-p"]
    for text, output in zip(texts, found):
        stdout = subprocess.run([*generate, text], check=True, capture_output=True, text=True).stdout
        assert stdout == f"{text}{output.outputs[0].text}\n"

    body = {"temperature": 0, "max_tokens": 12, "logprobs": 2, "return_token_ids": True}
    lines = [json.dumps({"prompt": text, **body}) for text in texts]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    files = ["-i", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--ordered"]
    subprocess.run([rustorch, "batch", *common, "-q", *files], check=True, capture_output=True)
    results = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(results) == len(texts)
    for result, output in zip(results, found):
        [choice] = result["response"]["body"]["choices"]
        [ours] = output.outputs
        assert choice["text"] == ours.text
        assert choice["token_ids"] == ours.token_ids
        assert choice["prompt_token_ids"] == output.prompt_token_ids
        assert ours.logprobs is not None
        scores = [scored[token].logprob for token, scored in zip(ours.token_ids, ours.logprobs)]
        # Numbers of type f32, of which the program prints as few digits as tell them apart.
        assert np.array_equal(
            np.asarray(scores, np.float32), np.asarray(choice["logprobs"]["token_logprobs"], np.float32)
        )


def test_prompts_have_many_forms(llm: LLM) -> None:
    text = "Once upon a time"
    [expect] = llm.generate(text, greedy(), use_tqdm=False)
    token_ids = llm.tokenize(text)
    assert expect.prompt == text and expect.prompt_token_ids == token_ids
    forms: list[Any] = [[text], (text,), {"prompt": text}, [{"prompt": text}], iter([text])]
    for form in forms:
        [output] = llm.generate(form, greedy(), use_tqdm=False)
        assert (output.prompt, output.outputs) == (text, expect.outputs)
    as_ids: list[Any] = [
        token_ids,
        [token_ids],
        {"prompt_token_ids": token_ids},
        [{"prompt_token_ids": tuple(token_ids)}],
    ]
    for form in as_ids:
        [output] = llm.generate(form, greedy(), use_tqdm=False)
        assert (output.prompt, output.prompt_token_ids, output.outputs) == (None, token_ids, expect.outputs)
    assert llm.generate([], greedy(), use_tqdm=False) == []


def test_outputs_have_vllms_shape(llm: LLM) -> None:
    [output] = llm.generate("Once upon a time", greedy(logprobs=2, prompt_logprobs=0), use_tqdm=False)
    [choice] = output.outputs
    assert output.finished and choice.index == 0 and choice.finished()
    assert len(choice.token_ids) == 12 and choice.finish_reason == "length" and choice.stop_reason is None
    assert choice.logprobs is not None and [list(scored)[0] for scored in choice.logprobs] == choice.token_ids
    assert all(len(scored) == 2 and list(scored.values())[0].rank == 1 for scored in choice.logprobs)
    own = [scored[token] for token, scored in zip(choice.token_ids, choice.logprobs)]
    assert choice.cumulative_logprob == pytest.approx(sum(score.logprob for score in own))
    assert "".join(score.decoded_token or "" for score in own) == choice.text
    assert output.prompt_logprobs is not None and output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)
    [plain] = llm.generate("Once upon a time", greedy(), use_tqdm=False)
    assert (plain.outputs[0].logprobs, plain.outputs[0].cumulative_logprob) == (None, None)
    assert plain.outputs[0].token_ids == choice.token_ids and plain.request_id != output.request_id


def test_wrong_arguments_are_named(llm: LLM) -> None:
    def refused(message: str, prompts: Any, params: Any = None) -> None:
        with pytest.raises(ValueError, match=message):
            llm.generate(prompts, params, use_tqdm=False)

    refused("temperature: expected a number of at least 0, found -1", "A", SamplingParams(temperature=-1))
    refused(r"prompts\[1\]: .*expected at least one token, found none", ["A", []])
    refused("token id 99999 is out of range, expected less than", [1, 99999])
    refused("maximum context length is 512 tokens", "A", SamplingParams(max_tokens=512))
    refused("sampling_params: expected 2, one for each prompt, found 1", ["A", "B"], [greedy()])
    refused("multi_modal_data: expected none", {"prompt": "A", "multi_modal_data": {}})
    refused("prompt: expected a dictionary with prompt or prompt_token_ids", {})
    refused("prompt: expected a string, token ids or a dictionary, found 1.5", [1.5])
    refused("prompt_token_ids: expected token ids, found -1", [-1])
    # The engine goes on.
    assert llm.generate("A", greedy(), use_tqdm=False)[0].finished


def test_prompts_of_an_iterator_are_taken_as_there_is_room(llm: LLM) -> None:
    taken = 0

    def prompts() -> Iterator[str]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield f"Story number {number}"

    # Each prompt has its own length, so that they do not end in their order.
    lengths = (SamplingParams(temperature=0, max_tokens=1 + number * 7 % 20) for number in itertools.count())
    outputs = llm.generate_iter(prompts(), lengths)
    for number in range(150):
        assert next(outputs).prompt == f"Story number {number}"
        assert taken <= number + 1 + 4 * llm.max_num_seqs
    outputs.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="sampling_params: expected one for each prompt, found fewer"):
        list(llm.generate_iter(["A", "B"], [greedy()]))
    unordered = llm.generate_iter((f"A {number}" for number in range(100)), greedy(), ordered=False)
    assert {output.prompt for output in unordered} == {f"A {number}" for number in range(100)}


def test_progress_is_shown_as_asked(llm: LLM, capfd: pytest.CaptureFixture[str]) -> None:
    counted: list[Any] = []

    class Bar:
        def __init__(self, total: int, **_: Any) -> None:
            counted.append(total)

        def update(self, count: int) -> None:
            counted.append(count)

        def close(self) -> None:
            counted.append("closed")

    llm.generate(["A", "B"], greedy(), use_tqdm=Bar)
    assert counted == [2, 1, 1, "closed"]
    llm.generate("A", greedy(), use_tqdm=False)
    assert "Processed prompts" not in capfd.readouterr().err
    llm.generate("A", greedy())
    assert "Processed prompts" in capfd.readouterr().err


def test_ctrl_c_ends_the_call_and_its_requests(llm: LLM) -> None:
    before = llm._engine.num_cancelled
    in_flight = threading.Event()

    def interrupt() -> None:
        in_flight.wait()
        os.kill(os.getpid(), signal.SIGINT)

    def prompts() -> Iterator[str]:
        # Far more than is answered before the signal; without it the call would end without an exception.
        for number in range(3000):
            if number == 4 * llm.max_num_seqs:
                in_flight.set()
            yield "Once upon a time"

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        llm.generate(prompts(), greedy(max_tokens=400, ignore_eos=True), use_tqdm=False)
    thread.join()
    # The engine has the running step to finish before it looks; a request that is served after it shows that it has.
    assert llm.generate("A", greedy(), use_tqdm=False)[0].finished
    assert llm._engine.num_cancelled > before


def test_other_threads_run_while_one_computes(llm: LLM) -> None:
    """The interpreter is free during a call: threads that share a model have their requests in the same steps."""
    outputs: dict[int, list[RequestOutput]] = {}

    def run(number: int) -> None:
        outputs[number] = llm.generate(PROMPTS, greedy(), use_tqdm=False)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect = answers(llm.generate(PROMPTS, greedy(), use_tqdm=False))
    assert [answers(outputs[number]) for number in range(4)] == [expect] * 4


def test_a_stopped_engine_says_so() -> None:
    llm = LLM("demo", device="cpu", max_model_len=64, max_num_seqs=2)
    llm._engine.shutdown()
    with pytest.raises(EngineError, match="the engine has stopped"):
        llm.generate("A", use_tqdm=False)
    assert issubclass(EngineError, RuntimeError)
