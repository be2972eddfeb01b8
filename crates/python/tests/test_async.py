"""`AsyncLLM`: streams, cancelling, the end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any, Coroutine, Iterator, TypeVar

import numpy as np
import pytest

from rustorch_llama import LLM, AsyncLLM, EngineError, RequestOutput, RequestOutputKind, SamplingParams

_T = TypeVar("_T")
PROMPTS = ["Once upon a time", "The little dog", "A", "Tom and Lily " * 20]


@pytest.fixture(scope="module")
def model() -> Iterator[AsyncLLM]:
    model = AsyncLLM("demo", device="cpu", max_model_len=512, max_num_seqs=16)
    yield model
    model.shutdown()


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(coroutine)


async def outputs(model: AsyncLLM, prompt: str, **fields: Any) -> list[RequestOutput]:
    params = SamplingParams(**{"temperature": 0, "max_tokens": 12, "logprobs": 1, **fields})
    return [output async for output in model.generate(prompt, params)]


def test_streams_grow_to_the_answer(model: AsyncLLM, llm: LLM) -> None:
    async def main() -> list[list[RequestOutput]]:
        return await asyncio.gather(*(outputs(model, prompt, n=2, temperature=0.9, seed=5) for prompt in PROMPTS))

    params = SamplingParams(temperature=0.9, seed=5, n=2, max_tokens=12, logprobs=1)
    expect = llm.generate(PROMPTS, params, use_tqdm=False)
    for stream, whole in zip(run(main()), expect):
        assert stream[-1].finished and not any(output.finished for output in stream[:-1])
        assert stream[-1].outputs == whole.outputs and stream[-1].prompt_token_ids == whole.prompt_token_ids
        for before, after in zip(stream, stream[1:]):
            for old, new in zip(before.outputs, after.outputs):
                assert new.text.startswith(old.text) and new.token_ids[: len(old.token_ids)] == old.token_ids


def test_output_kinds(model: AsyncLLM) -> None:
    [whole] = run(outputs(model, PROMPTS[0], output_kind=RequestOutputKind.FINAL_ONLY))
    assert whole.finished
    deltas = run(outputs(model, PROMPTS[0], output_kind=RequestOutputKind.DELTA))
    assert "".join(output.outputs[0].text for output in deltas) == whole.outputs[0].text
    assert [token for output in deltas for token in output.outputs[0].token_ids] == whole.outputs[0].token_ids
    assert deltas[-1].finished and deltas[-1].outputs[0].finish_reason == "length"


def test_cancelling_a_task_cancels_its_request(model: AsyncLLM) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def read() -> None:
            params = SamplingParams(max_tokens=500, ignore_eos=True)
            async for _ in model.generate(PROMPTS[0], params, "cancelled"):
                begun.set()

        before = model._engine.num_cancelled
        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # A request that comes later shows that steps went on.
        await outputs(model, PROMPTS[1])
        assert model._engine.num_cancelled == before + 1
        assert "cancelled" not in model._running and not model._pump.streams

    run(main())


def test_leaving_a_loop_cancels_its_request(model: AsyncLLM) -> None:
    async def main() -> None:
        before = model._engine.num_cancelled
        stream = model.generate(PROMPTS[0], SamplingParams(max_tokens=500, ignore_eos=True))
        async for output in stream:
            assert not output.finished
            break
        await stream.aclose()  # type: ignore[attr-defined]
        await outputs(model, PROMPTS[1])
        assert model._engine.num_cancelled == before + 1

    run(main())


def test_a_request_can_be_aborted(model: AsyncLLM) -> None:
    async def main() -> RequestOutput:
        params = SamplingParams(max_tokens=500, ignore_eos=True)
        async for output in model.generate(PROMPTS[0], params, "mine"):
            with pytest.raises(ValueError, match="request_id: expected one that is not running, found 'mine'"):
                await anext_of(model, "mine")
            await model.abort("mine")
        await model.abort("no such request")
        return output

    output = run(main())
    assert output.finished and output.outputs[0].finish_reason == "abort" and output.request_id == "mine"
    assert 0 < len(output.outputs[0].token_ids) < 500


async def anext_of(model: AsyncLLM, request_id: str) -> RequestOutput:
    return await model.generate("A", None, request_id).__anext__()


def test_errors_are_exceptions(model: AsyncLLM) -> None:
    with pytest.raises(ValueError, match="temperature"):
        run(outputs(model, "A", temperature=-1))
    assert not model._pump.streams


def test_embeddings(model: AsyncLLM, llm: LLM) -> None:
    found = run(model.embed(PROMPTS[1]))
    [expect] = llm.embed(PROMPTS[1], use_tqdm=False)
    assert np.array_equal(found.outputs.embedding, expect.outputs.embedding)


def test_shutdown_ends_requests() -> None:
    model = AsyncLLM("demo", device="cpu", max_model_len=512, max_num_seqs=2)

    async def main() -> None:
        async for _ in model.generate("A", SamplingParams(max_tokens=500, ignore_eos=True)):
            model.shutdown()

    with pytest.raises(EngineError, match="the engine has stopped"):
        run(main())


def test_a_program_may_end_without_shutdown() -> None:
    source = """
import asyncio
from rustorch_llama import AsyncLLM, SamplingParams
model = AsyncLLM("demo", device="cpu", max_model_len=512, max_num_seqs=2)
async def main():
    async for output in model.generate("A", SamplingParams(max_tokens=500, ignore_eos=True)):
        print(output.prompt)
        break
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "A\n", "")
