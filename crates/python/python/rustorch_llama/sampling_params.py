"""How tokens are chosen and when generation ends: vLLM's names and defaults."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, Optional, Union

# Values of a number that JSON has no word for become this, which is beyond the range of the engine's numbers.
_BEYOND = 1e300


class RequestOutputKind(Enum):
    """What `AsyncLLM.generate` yields."""

    CUMULATIVE = 0
    """All that was generated so far, each time."""
    DELTA = 1
    """What is new."""
    FINAL_ONLY = 2
    """The whole, once."""


class _Shown:
    """A `repr` with the fields that differ from their defaults."""

    def __repr__(self) -> str:
        fields = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        shown = (f"{field.name}={value!r}" for field, value in fields if value != field.default)
        return f"{type(self).__name__}({', '.join(shown)})"


def _refuse(params: Any, unsupported: dict[str, str]) -> None:
    """Raises for a field of vLLM's that is not supported, unless it has its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(params)}
    for name, hint in unsupported.items():
        found = getattr(params, name)
        if found is not None and found != defaults[name]:
            reason = f": {hint}" if hint else ""
            raise ValueError(f"{name}: expected {defaults[name]!r} (not supported{reason}), found {found!r}")


@dataclass(repr=False)
class StructuredOutputsParams(_Shown):
    """What the answer must be: exactly one of these."""

    json: Optional[Union[str, dict[str, Any]]] = None
    """JSON that this schema accepts."""
    regex: Optional[str] = None
    """A match of this regular expression."""
    choice: Optional[list[str]] = None
    """One of these strings."""
    grammar: Optional[str] = None
    """A sentence of this grammar: llama.cpp's GBNF (with `::=`), or Lark."""
    json_object: Optional[bool] = None
    """A JSON object."""
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: Optional[str] = None
    structural_tag: Optional[str] = None

    def __post_init__(self) -> None:
        _refuse(
            self,
            {
                "disable_any_whitespace": "white space is bounded",
                "disable_additional_properties": "say it in the schema",
                "whitespace_pattern": "white space is bounded",
                "structural_tag": "",
            },
        )
        given = list(self._body())
        if len(given) != 1:
            found = " and ".join(given) or "none"
            names = "json, regex, choice, grammar and json_object"
            raise ValueError(f"structured_outputs: expected one of {names}, found {found}")

    def _body(self) -> dict[str, Any]:
        """As the field of a body."""
        fields = ["json", "regex", "choice", "grammar", "json_object"]
        return {name: getattr(self, name) for name in fields if getattr(self, name) is not None}


GuidedDecodingParams = StructuredOutputsParams
"""The older name."""

# Fields of vLLM's that the engine cannot serve, and what to do instead.
_UNSUPPORTED = {
    "flat_logprobs": "logprobs are dictionaries",
    "detokenize": "",
    "spaces_between_special_tokens": "",
    "allowed_token_ids": "logit_bias can favour tokens",
    "bad_words": "logit_bias can forbid tokens",
    "logits_processors": "",
    "extra_args": "",
    "prompt_logprob_token_ids": "",
    "logprob_token_ids": "use logprobs",
    "thinking_token_budget": "",
    "repetition_detection": "dry_multiplier penalises repetitions",
    "skip_reading_prefix_cache": "an answer is the same with the prefix cache and without",
}

# Fields that are those of a body under the same name.
_NUMBERS = [
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "mirostat_tau",
    "mirostat_eta",
    "dry_multiplier",
    "dry_base",
]
_OTHERS = [
    "n",
    "top_k",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "min_tokens",
    "prompt_logprobs",
    "skip_special_tokens",
    "include_stop_str_in_output",
    "mirostat",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
]


@dataclass(repr=False)
class SamplingParams(_Shown):
    """How tokens are chosen and when generation ends.

    Ranges are checked when a request is made of it, before anything runs. A field of vLLM's that the engine cannot serve
    is refused here, by its name.
    """

    n: int = 1
    """Choices for each prompt."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of a token that was generated."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each time it was generated."""
    repetition_penalty: float = 1.0
    """For tokens of prompt and answer, as a factor; 1 changes nothing."""
    temperature: float = 1.0
    """0 takes the most likely token each time."""
    top_p: float = 1.0
    """Choose among the most likely tokens with this sum of probabilities."""
    top_k: int = 0
    """Choose among so many most likely tokens; 0 or -1: all."""
    min_p: float = 0.0
    """Choose among tokens at least so likely, as a share of the most likely."""
    seed: Optional[int] = None
    """The same seed gives the same answer, whatever else is running; None: a random one for each request."""
    stop: Optional[Union[str, list[str]]] = None
    """Strings that end the text."""
    stop_token_ids: Optional[list[int]] = None
    """Tokens that end the text, beside the model's own. They are in `token_ids` but have no text."""
    ignore_eos: bool = False
    """Generate on after an end-of-generation token."""
    max_tokens: Optional[int] = 16
    """Most tokens to generate; None: what the context holds."""
    min_tokens: int = 0
    """Tokens before which nothing ends the text."""
    logprobs: Optional[int] = None
    """Log-probabilities of each token and so many of the most likely ones (at most 20): the model's own, before
    penalties and temperature."""
    prompt_logprobs: Optional[int] = None
    """The same, of the prompt's tokens from the second on."""
    flat_logprobs: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True
    """False: control tokens of the answer show in its text."""
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    """The stop string that ends the text is its end."""
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    """What `AsyncLLM.generate` yields."""
    structured_outputs: Optional[StructuredOutputsParams] = None
    """What the answer must be."""
    logit_bias: Optional[dict[int, float]] = None
    """Numbers added to the logits of tokens; minus infinity forbids one."""
    allowed_token_ids: Optional[list[int]] = None
    extra_args: Optional[dict[str, Any]] = None
    bad_words: Optional[list[str]] = None
    logits_processors: Optional[Any] = None
    prompt_logprob_token_ids: Optional[list[int]] = None
    logprob_token_ids: Optional[list[int]] = None
    thinking_token_budget: Optional[int] = None
    repetition_detection: Optional[Any] = None
    skip_reading_prefix_cache: Optional[bool] = None
    guided_decoding: Optional[StructuredOutputsParams] = None
    """The older name of `structured_outputs`, which it becomes."""
    # Not vLLM's.
    typical_p: float = 1.0
    """Choose among the tokens about as likely as is to be expected, with this sum."""
    top_n_sigma: float = 0.0
    """Choose among tokens at most so many standard deviations below the highest logit; 0: all."""
    xtc_probability: float = 0.0
    """How often the most likely tokens are excluded."""
    xtc_threshold: float = 0.1
    """Of tokens at least so likely, all but the least likely are."""
    mirostat: int = 0
    """2: keep the surprise of the text constant."""
    mirostat_tau: float = 5.0
    """That surprise, in bits."""
    mirostat_eta: float = 0.1
    """How fast it is followed."""
    dry_multiplier: float = 0.0
    """Penalty of tokens that would continue a repetition; 0: none."""
    dry_base: float = 1.75
    """Its factor for each token of the repetition."""
    dry_allowed_length: int = 2
    """The shortest repetition that is penalised."""
    dry_penalty_last_n: int = -1
    """Tokens in which repetitions are looked for; -1: all."""
    dry_sequence_breakers: Optional[list[str]] = None
    """What no repetition reaches over; None: newline, colon, quotation mark and asterisk."""

    def __post_init__(self) -> None:
        _refuse(self, _UNSUPPORTED)
        if self.guided_decoding is not None:
            if self.structured_outputs is not None:
                raise ValueError("guided_decoding: expected none beside structured_outputs, found both")
            self.structured_outputs, self.guided_decoding = self.guided_decoding, None
        if not isinstance(self.n, int):
            raise ValueError(f"n: expected a whole number, found {self.n!r}")
        if not isinstance(self.output_kind, RequestOutputKind):
            raise ValueError(f"output_kind: expected a RequestOutputKind, found {self.output_kind!r}")

    def clone(self) -> SamplingParams:
        """A copy that shares nothing with it."""
        return copy.deepcopy(self)

    def _body(self, is_chat: bool) -> dict[str, Any]:
        """As fields of a body. Those with their default are left out."""
        _refuse(self, _UNSUPPORTED)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        changed = {name: value for name, value in vars(self).items() if value != defaults[name]}
        body = {name: _number(name, changed[name]) for name in _NUMBERS if name in changed}
        body.update((name, _plain(changed[name])) for name in _OTHERS if name in changed)
        body["max_tokens"] = self.max_tokens
        if self.logprobs is not None:
            body.update({"logprobs": True, "top_logprobs": self.logprobs} if is_chat else {"logprobs": self.logprobs})
        if self.structured_outputs is not None:
            body["structured_outputs"] = self.structured_outputs._body()
        if self.logit_bias is not None:
            biases = self.logit_bias.items()
            body["logit_bias"] = {str(token): _number("logit_bias", bias) for token, bias in biases}
        return body


def _number(name: str, value: Any) -> Any:
    if isinstance(value, float) or hasattr(value, "dtype"):
        value = float(value)
        if math.isnan(value):
            raise ValueError(f"{name}: expected a number, found nan")
        if math.isinf(value):
            return math.copysign(_BEYOND, value)
    return value


def _plain(value: Any) -> Any:
    """Tuples, sets and arrays as lists, numbers of other libraries as Python's."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(item) for item in value]
