"""Prompts to bodies, and the parts of an answer to an answer: what `LLM` and `AsyncLLM` share."""

from __future__ import annotations

import json
import operator
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Iterable, Optional, TypedDict, Union

import numpy as np

from ._batch import check_seed
from ._rustorch import Engine, EngineError, Part, Requests, Submitted
from ._rustorch import row_seed as native_row_seed
from .outputs import CompletionOutput, EmbeddingOutput, EmbeddingRequestOutput, Logprob, RequestOutput
from .sampling_params import SamplingParams


class TextPrompt(TypedDict):
    """A prompt as text."""

    prompt: str


class _TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


class TokensPrompt(_TokensPrompt, total=False):
    """A prompt as token ids."""

    prompt: str


Prompt = Union[str, list[int], TextPrompt, TokensPrompt]
Message = Mapping[str, Any]


@dataclass
class Job:
    """A request that can be submitted."""

    endpoint: str
    """completions, chat or embeddings."""
    body: dict[str, Any]
    params: SamplingParams
    prompt: Optional[str] = None
    custom_id: Optional[str] = None
    """Names the answer, and gives a seed to parameters without one."""

    def submit(self, engine: Engine, requests: Requests, tag: int) -> Submitted:
        """Queues it. Nothing is queued if that fails."""
        try:
            body = json.dumps(self.body, allow_nan=False)
        except TypeError as error:
            raise ValueError(f"a request is JSON: {error}") from None
        # The seed is that of a request without one.
        seed = secrets.randbits(64) if self.custom_id is None else native_row_seed(self.custom_id, 0)
        return engine.submit(self.endpoint, requests, tag, body, seed)


def is_single(prompts: Any) -> bool:
    """Whether that is one prompt and not several."""
    if isinstance(prompts, (str, Mapping)):
        return True
    return isinstance(prompts, list) and len(prompts) > 0 and all(isinstance(item, int) for item in prompts)


# The value of a body that is one prompt: a list of one list is that too, even if the inner one is empty, which the engine refuses in
# its own words.
_Sent = Union[str, list[list[int]]]


def read_prompt(prompt: Any) -> tuple[Optional[str], _Sent]:
    """A prompt's text, if it was given, and what is sent of it."""
    if isinstance(prompt, str):
        return prompt, prompt
    if isinstance(prompt, Mapping):
        for name, value in prompt.items():
            if name not in ("prompt", "prompt_token_ids") and value is not None:
                raise ValueError(f"{name}: expected none (not supported in a prompt), found {value!r}")
        text, token_ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
        if token_ids is not None:
            return text, [read_token_ids(token_ids)]
        if isinstance(text, str):
            return text, text
        raise ValueError("prompt: expected a dictionary with prompt or prompt_token_ids, found neither")
    if isinstance(prompt, Iterable):
        return None, [read_token_ids(prompt)]
    raise ValueError(f"prompt: expected a string, token ids or a dictionary, found {prompt!r}")


def read_token_ids(token_ids: Iterable[Any]) -> list[int]:
    """Token ids as Python's numbers."""
    try:
        found = [operator.index(token_id) for token_id in token_ids]
    except TypeError as error:
        raise ValueError(f"prompt_token_ids: expected whole numbers: {error}") from None
    wrong = next((token_id for token_id in found if not 0 <= token_id < 1 << 32), None)
    if wrong is not None:
        raise ValueError(f"prompt_token_ids: expected token ids, found {wrong}")
    return found


def completion(prompt: Any, params: SamplingParams) -> Job:
    """A prompt to continue."""
    text, sent = read_prompt(prompt)
    return Job("completions", {"prompt": sent, **params._body(is_chat=False)}, params, text)


def embedding(prompt: Any, pooling: Optional[str]) -> Job:
    """A prompt to embed."""
    text, sent = read_prompt(prompt)
    return Job("embeddings", {"input": sent, "pooling": pooling}, SamplingParams(), text)


def row_seed(custom_id: str, seed: int = 0) -> int:
    """The seed of a row that has none: a hash of its `custom_id` and the run's seed, the same on every machine.

    `rustorch batch` and `LLM.run_batch` derive it so, and `LLM.generate` and `LLM.chat` with `ids`.
    """
    return native_row_seed(custom_id, check_seed(seed))


def _scores(scored: Iterable[tuple[int, float, int, str]]) -> dict[int, Logprob]:
    return {token_id: Logprob(logprob, rank, text) for token_id, logprob, rank, text in scored}


class Collector:
    """Puts the parts of a request's answer together."""

    def __init__(self, engine: Engine, job: Job, request_id: str, submitted: Submitted) -> None:
        self.job = job
        self.submitted = submitted
        prompt_token_ids = submitted.prompt_token_ids
        is_chat = job.endpoint == "chat"
        has_scores = job.params.logprobs is not None
        self._eos_token_ids = set() if job.params.ignore_eos else set(engine.eos_token_ids)
        self._stop_token_ids = set(job.params.stop_token_ids or ())
        self._vector: Optional[bytearray] = None
        self._num_running = job.params.n
        self._new: dict[int, CompletionOutput] = {}
        self._whole = RequestOutput(
            request_id=request_id,
            prompt=engine.detokenize(prompt_token_ids, False) if is_chat else job.prompt,
            prompt_token_ids=prompt_token_ids,
            prompt_logprobs=None,
            outputs=[_empty(index, has_scores) for index in range(job.params.n)],
            finished=False,
        )

    @property
    def finished(self) -> bool:
        """Whether all parts are there."""
        return self._whole.finished

    def add(self, part: Part) -> None:
        """Adds a part, or raises what ended the request early."""
        if part.error is not None:
            raise part.error
        self._vector = part.embedding
        scored = part.prompt_logprobs(self._whole.prompt_token_ids)
        if scored is not None:
            self._whole.prompt_logprobs = [None, *map(_scores, scored)]
        index = part.choice
        new = self._new.setdefault(index, _empty(index, self.job.params.logprobs is not None))
        for output in (self._whole.outputs[index], new):
            output.text += part.text
            output.token_ids += part.token_ids
            if output.logprobs is not None:
                scores = part.logprobs
                output.logprobs += map(_scores, scores)
                # The first is the token's own.
                output.cumulative_logprob = (output.cumulative_logprob or 0.0) + sum(own[1] for own, *_ in scores)
            output.finish_reason = part.finish_reason
            if part.finish_reason == "stop":
                output.stop_reason = part.stop_string or self._stop_token(self._whole.outputs[index].token_ids)
        new.cumulative_logprob = self._whole.outputs[index].cumulative_logprob
        if part.num_cached_tokens is not None:
            if index == 0:
                self._whole.num_cached_tokens = part.num_cached_tokens
            self._num_running -= 1
            self._whole.finished = self._num_running == 0

    def _stop_token(self, token_ids: list[int]) -> Optional[int]:
        last = token_ids[-1] if token_ids else None
        return last if last in self._stop_token_ids - self._eos_token_ids else None

    def abort(self) -> None:
        """Ends the request where it is."""
        self.submitted.cancel()
        for output in self._whole.outputs:
            output.finish_reason = output.finish_reason or "abort"
        self._new = {output.index: replace(output, text="", token_ids=[]) for output in self._whole.outputs}
        self._whole.finished = True

    def whole(self) -> RequestOutput:
        """All that is there so far. It is the collector's own if it is finished, otherwise a copy."""
        self._new = {}
        if self._whole.finished:
            return self._whole
        return replace(self._whole, outputs=[_copy(output) for output in self._whole.outputs])

    def take_new(self) -> RequestOutput:
        """What is there since the last call."""
        new, self._new = self._new, {}
        return replace(self._whole, outputs=[new[index] for index in sorted(new)])

    def embedding(self) -> EmbeddingRequestOutput:
        """The answer to a prompt to embed."""
        whole = self._whole
        if self._vector is None:
            raise EngineError("the request was aborted")
        values = np.frombuffer(self._vector, dtype=np.float32)
        return EmbeddingRequestOutput(
            whole.request_id, EmbeddingOutput(values), whole.prompt_token_ids, whole.num_cached_tokens or 0
        )


def _empty(index: int, has_scores: bool) -> CompletionOutput:
    return CompletionOutput(index, "", [], 0.0 if has_scores else None, [] if has_scores else None)


def _copy(output: CompletionOutput) -> CompletionOutput:
    logprobs = None if output.logprobs is None else list(output.logprobs)
    return replace(output, token_ids=list(output.token_ids), logprobs=logprobs)
