"""What requests yield: vLLM's names and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Logprob:
    """A token's log-probability in the model's own distribution."""

    logprob: float
    rank: Optional[int] = None
    """Its place among all, 1 for the most likely."""
    decoded_token: Optional[str] = None
    """Its text; a part of a character is U+FFFD."""


@dataclass
class CompletionOutput:
    """One choice of a request."""

    index: int
    text: str
    token_ids: list[int]
    """The tokens, the one that ended the text included."""
    cumulative_logprob: Optional[float]
    """The sum of the tokens' log-probabilities, if they were asked for."""
    logprobs: Optional[list[dict[int, Logprob]]]
    """For each token, that of itself and of the most likely ones, if they were asked for."""
    finish_reason: Optional[str] = None
    """`stop`, `length`, or `abort` of a request that was aborted; None while it runs."""
    stop_reason: Optional[Union[int, str]] = None
    """The stop string or the token of `stop_token_ids` that ended the text."""

    def finished(self) -> bool:
        """Whether it is complete."""
        return self.finish_reason is not None


@dataclass
class RequestOutput:
    """The answer to a prompt."""

    request_id: str
    prompt: Optional[str]
    """The prompt as text; None if it was given as token ids."""
    prompt_token_ids: list[int]
    prompt_logprobs: Optional[list[Optional[dict[int, Logprob]]]]
    """For each token of the prompt, if they were asked for; None for the first."""
    outputs: list[CompletionOutput]
    """One for each choice."""
    finished: bool
    metrics: Optional[Any] = None
    num_cached_tokens: Optional[int] = None
    """Tokens of the prompt that were found in the prefix cache."""


@dataclass
class EmbeddingOutput:
    """An embedding."""

    embedding: npt.NDArray[np.float32]
    """`[hidden_size]` values of Euclidean length 1."""

    @property
    def hidden_size(self) -> int:
        """Its length."""
        return len(self.embedding)


@dataclass
class EmbeddingRequestOutput:
    """The embedding of a prompt."""

    request_id: str
    outputs: EmbeddingOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int
    finished: bool = True
