"""`LLM`: many prompts at once."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Optional, Sequence, TypeVar, Union

from ._batch import BatchOptions, Shard, native_options
from ._batch import Path_ as Path
from ._model import Model
from ._requests import Collector, Job, Message, Prompt, completion, embedding, is_single
from ._rustorch import BatchSummary, EngineError
from .outputs import EmbeddingRequestOutput, RequestOutput
from .sampling_params import SamplingParams

if TYPE_CHECKING:
    from typing_extensions import Unpack

_T = TypeVar("_T")

Params = Union[SamplingParams, Sequence[SamplingParams], None]
Prompts = Union[Prompt, Iterable[Prompt]]
Progress = Union[bool, Callable[..., Any]]

# Requests in flight for each sequence that runs, so that none waits for the next prompt.
_IN_FLIGHT = 4


class LLM(Model):
    """A model that answers many prompts at once.

    Threads may share it. Ctrl-C ends a call, and its requests with it.
    """

    def generate(
        self,
        prompts: Prompts,
        sampling_params: Params = None,
        use_tqdm: Progress = True,
        *,
        ids: Optional[Sequence[str]] = None,
    ) -> list[RequestOutput]:
        """Continues prompts; the answers have their order.

        A prompt is a string, a list of token ids, `{"prompt": ..}` or `{"prompt_token_ids": ..}`. Sampling parameters
        are for all prompts, or one for each. `use_tqdm` shows progress if tqdm is installed; it may be a function like
        tqdm. With `ids`, one for each prompt, an answer has its prompt's as `request_id`, and parameters without a seed
        get `row_seed` of it: the answer is the same in any batch, on any machine and in any retry.
        """
        single = is_single(prompts)
        items = _one_for_each(sampling_params, [prompts] if single else prompts, "prompt")
        if ids is not None:
            items = _one_id_for_each(ids, items, "prompt")
        jobs = _named(map(completion, items, _each(sampling_params)), ids)
        return self._all(jobs, Collector.whole, use_tqdm, _length(items), None if single else "prompts")

    def generate_iter(
        self,
        prompts: Iterable[Prompt],
        sampling_params: Union[SamplingParams, Iterable[SamplingParams], None] = None,
        *,
        ordered: bool = True,
    ) -> Iterator[RequestOutput]:
        """As `generate`, one answer after the other, for any number of prompts in bounded memory.

        Prompts are taken as there is room for them: 4 times `max_num_seqs` are in flight. Without `ordered` answers
        come when they are finished, and a long one holds no other up. Closing the iterator ends its requests.
        """
        items: Iterable[Any] = [prompts] if is_single(prompts) else prompts
        jobs = map(completion, items, _each(sampling_params))
        return (output for _, output in self._run(jobs, Collector.whole, "prompts", ordered))

    def chat(
        self,
        messages: Union[Sequence[Message], Sequence[Sequence[Message]]],
        sampling_params: Params = None,
        use_tqdm: Progress = True,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Optional[Sequence[Mapping[str, Any]]] = None,
        tool_choice: Union[str, Mapping[str, Any], None] = None,
        response_format: Optional[Mapping[str, Any]] = None,
        chat_template_kwargs: Optional[Mapping[str, Any]] = None,
        ids: Optional[Sequence[str]] = None,
    ) -> list[RequestOutput]:
        """Answers one conversation or several, by the model's chat template.

        Messages, tools and response format are those of OpenAI's API. As with vLLM, the text of an answer is what the
        model wrote, calls of tools included. `ids` as for `generate`.
        """
        conversations: list[Any] = list(messages)
        single = not conversations or isinstance(conversations[0], Mapping)
        conversations = [conversations] if single else conversations
        rest = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "tools": tools,
            "tool_choice": tool_choice,
            "response_format": response_format,
            "chat_template_kwargs": chat_template_kwargs,
        }

        def job(conversation: Sequence[Message], params: SamplingParams) -> Job:
            return Job("chat", {"messages": list(conversation), **rest, **params._body(is_chat=True)}, params)

        _one_for_each(sampling_params, conversations, "conversation")
        if ids is not None:
            _one_id_for_each(ids, conversations, "conversation")
        jobs = _named(map(job, conversations, _each(sampling_params)), ids)
        return self._all(jobs, Collector.whole, use_tqdm, len(conversations), None if single else "messages")

    def embed(
        self, prompts: Prompts, use_tqdm: Progress = True, *, pooling: Optional[str] = None
    ) -> list[EmbeddingRequestOutput]:
        """Embeds prompts: vectors of length 1. `pooling` is "last" or "mean"; without it what the model's file says."""
        single = is_single(prompts)
        items: Iterable[Any] = [prompts] if single else prompts
        jobs = (embedding(item, pooling) for item in items)
        return self._all(jobs, Collector.embedding, use_tqdm, _length(items), None if single else "prompts")

    def run_batch(
        self,
        input_file: Path,
        output_file: Path,
        *,
        shard: Shard = None,
        reproducible: bool = False,
        ordered: bool = False,
        retry_errors: bool = False,
        overwrite: bool = False,
        input_format: Optional[str] = None,
        prompt_column: str = "prompt",
        use_tqdm: Progress = True,
        **options: Unpack[BatchOptions],
    ) -> BatchSummary:
        """Answers a file of requests into a file of results that survives a crash, as `rustorch batch` does.

        Lines, results and options are those of the command, and so are the bytes of the results. The output is its own
        journal: after a crash, an exception or Ctrl-C the same call, or the command, goes on. A line that cannot be
        served is a result with an error, which the summary counts, and no exception.

        shard: "1/4" or (1, 4) for the first of every 4 lines.
        reproducible: the same bytes for the same line whenever, wherever and beside whatever it is answered, in order.
        ordered: results in the order of the input, not as they are finished.
        retry_errors: try lines again whose results are errors.
        overwrite: delete the results that the output has.
        input_format: "jsonl", "text" or "csv"; by the file's name without it.
        options: see `BatchOptions`.
        """
        native = native_options(
            self._arguments["model"],
            (input_file, output_file),
            shard,
            reproducible=reproducible,
            ordered=ordered,
            retry_errors=retry_errors,
            overwrite=overwrite,
            input_format=input_format,
            prompt_column=prompt_column,
            **options,
        )
        summary = self._run_batch(native, use_tqdm)
        assert summary is not None
        return summary

    def run_job_part(
        self, job: Path, part: int, *, use_tqdm: Progress = True, **options: Unpack[BatchOptions]
    ) -> Optional[BatchSummary]:
        """Answers a part of a job that `rustorch split` made, as `rustorch batch --job` does; None if it has its results.

        A worker keeps its model from part to part. It may be killed at any time: whoever calls this for the part again
        goes on there. A worker whose model, options or device differ from those of the job's first is refused.
        """
        return self._run_batch(native_options(self._arguments["model"], (job, None), part=part, **options), use_tqdm)

    def _run_batch(self, options: dict[str, Any], use_tqdm: Progress) -> Optional[BatchSummary]:
        bar: Any = None
        shown = 0

        def show(done: int, total: Optional[int]) -> None:
            nonlocal bar, shown
            if bar is None:
                bar = _progress_bar(use_tqdm, total)
            if bar is not None:
                bar.update(done - shown)
            shown = done

        try:
            summary = self._engine.run_batch(options, show if use_tqdm else None)
        finally:
            if bar is not None:
                bar.close()
        for warning in summary.warnings if summary is not None else ():
            warnings.warn(warning, stacklevel=3)
        return summary

    def _all(
        self,
        jobs: Iterator[Job],
        answer: Callable[[Collector], _T],
        use_tqdm: Progress,
        total: Optional[int],
        name: Optional[str],
    ) -> list[_T]:
        """The answers to all jobs, in their order."""
        answers: dict[int, _T] = {}
        bar = _progress_bar(use_tqdm, total)
        try:
            for index, output in self._run(jobs, answer, name, ordered=False):
                answers[index] = output
                if bar is not None:
                    bar.update(1)
        finally:
            if bar is not None:
                bar.close()
        return [answers[index] for index in range(len(answers))]

    def _run(
        self, jobs: Iterator[Job], answer: Callable[[Collector], _T], name: Optional[str], ordered: bool
    ) -> Iterator[tuple[int, _T]]:
        """Answers to jobs with their indices, a bounded number of jobs in flight. Errors name a job by `name`."""
        requests = self._engine.requests()
        running: dict[int, Collector] = {}
        finished: dict[int, _T] = {}
        most = _IN_FLIGHT * self.max_num_seqs
        num_begun = num_given = 0
        is_exhausted = False
        try:
            while True:
                while not is_exhausted and len(running) + len(finished) < most:
                    with _Naming(name, num_begun):
                        job = next(jobs, None)
                        if job is None:
                            is_exhausted = True
                            break
                        submitted = job.submit(self._engine, requests, num_begun)
                        running[num_begun] = Collector(self._engine, job, job.custom_id or str(next(_request_ids)), submitted)
                    num_begun += 1
                if not running:
                    return
                for part in requests.wait():
                    collector = running.get(part.tag)
                    if collector is None:
                        continue
                    with _Naming(name, part.tag):
                        collector.add(part)
                    if collector.finished:
                        finished[part.tag] = answer(running.pop(part.tag))
                while finished and (not ordered or num_given in finished):
                    index = num_given if ordered else next(iter(finished))
                    yield index, finished.pop(index)
                    num_given += 1
        finally:
            for collector in running.values():
                collector.submitted.cancel()


_request_ids = itertools.count()


class _Naming:
    """Adds to an error which of several prompts it is about."""

    def __init__(self, name: Optional[str], index: int) -> None:
        self._name, self._index = name, index

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], _: Any) -> None:
        if self._name is not None and kind in (ValueError, EngineError):
            named = f"{self._name}[{self._index}]: {error}"
            raise (ValueError(named) if kind is ValueError else EngineError(named)) from error


def _one_for_each(sampling_params: Params, items: Iterable[Any], name: str) -> Iterable[Any]:
    """The items. If there are parameters for each, they are as many."""
    if sampling_params is None or isinstance(sampling_params, SamplingParams):
        return items
    items = list(items)
    if len(items) != len(sampling_params):
        found = f"expected {len(items)}, one for each {name}, found {len(sampling_params)}"
        raise ValueError(f"sampling_params: {found}")
    return items


def _one_id_for_each(ids: Sequence[str], items: Iterable[Any], name: str) -> Sequence[Any]:
    """The items, as many as there are ids."""
    if isinstance(ids, str) or not all(isinstance(each, str) for each in ids):
        raise ValueError(f"ids: expected a list of strings, found {ids!r}")
    items = list(items)
    if len(items) != len(ids):
        raise ValueError(f"ids: expected {len(items)}, one for each {name}, found {len(ids)}")
    return items


def _named(jobs: Iterator[Job], ids: Optional[Sequence[str]]) -> Iterator[Job]:
    """The jobs, with their ids if they have some."""
    if ids is None:
        return jobs
    return (replace(job, custom_id=custom_id) for job, custom_id in zip(jobs, ids))


def _each(sampling_params: Union[SamplingParams, Iterable[SamplingParams], None]) -> Iterable[SamplingParams]:
    if sampling_params is None:
        return itertools.repeat(SamplingParams())
    if isinstance(sampling_params, SamplingParams):
        return itertools.repeat(sampling_params)
    return itertools.chain(sampling_params, _too_few())


def _too_few() -> Iterator[SamplingParams]:
    """The next parameters when there are no more."""
    raise ValueError("sampling_params: expected one for each prompt, found fewer")
    yield


def _length(items: Iterable[Any]) -> Optional[int]:
    return len(items) if isinstance(items, Sequence) else None


def _progress_bar(use_tqdm: Progress, total: Optional[int]) -> Any:
    if not use_tqdm:
        return None
    if callable(use_tqdm):
        return use_tqdm(total=total, desc="Processed prompts", dynamic_ncols=True)
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc="Processed prompts", dynamic_ncols=True)
