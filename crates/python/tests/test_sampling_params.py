"""Every field of `SamplingParams` has an effect that can be seen, or is refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from typing import Any

import pytest

from rustorch_llama import (
    LLM,
    CompletionOutput,
    GuidedDecodingParams,
    RequestOutputKind,
    SamplingParams,
    StructuredOutputsParams,
)

PROMPT = "Once upon a time"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 32}
RANDOM: dict[str, Any] = {"seed": 7, "max_tokens": 32}
OBJECT = {"type": "object", "additionalProperties": False}


def run(llm: LLM, prompt: str = PROMPT, **fields: Any) -> list[CompletionOutput]:
    return llm.generate(prompt, SamplingParams(**fields), use_tqdm=False)[0].outputs


def text(llm: LLM, prompt: str = PROMPT, **fields: Any) -> str:
    [output] = run(llm, prompt, **fields)
    return output.text


def test_defaults_are_vllms(llm: LLM) -> None:
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.min_p) == (1, 1.0, 1.0, 0, 0.0)
    assert (params.max_tokens, params.seed, params.logprobs, params.ignore_eos) == (16, None, None, False)
    [output] = run(llm)
    assert len(output.token_ids) == 16


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"top_k": 1},
        {"top_p": 1e-6},
        {"min_p": 1.0},
        {"top_n_sigma": 1e-3},
    ],
)
def test_narrow_choices_are_greedy(llm: LLM, fields: dict[str, Any]) -> None:
    greedy = text(llm, **GREEDY)
    assert text(llm, **{**RANDOM, **fields}) == greedy
    assert text(llm, **RANDOM) != greedy


@pytest.mark.parametrize(
    ("base", "fields"),
    [
        (RANDOM, {"temperature": 0.5}),
        (RANDOM, {"top_p": 0.5}),
        (RANDOM, {"typical_p": 0.3}),
        (RANDOM, {"seed": 8}),
        (RANDOM, {"xtc_probability": 1.0}),
        ({**RANDOM, "xtc_probability": 1.0}, {"xtc_threshold": 0.4}),
        ({**RANDOM, "mirostat_tau": 2.0}, {"mirostat": 2}),
        ({**RANDOM, "mirostat": 2}, {"mirostat_tau": 0.5}),
        ({**RANDOM, "mirostat": 2, "mirostat_tau": 2.0}, {"mirostat_eta": 0.9}),
        (GREEDY, {"repetition_penalty": 2.0}),
        (GREEDY, {"presence_penalty": 2.0}),
        (GREEDY, {"frequency_penalty": 2.0}),
        (GREEDY, {"dry_multiplier": 5.0, "dry_allowed_length": 1}),
    ],
)
def test_fields_change_what_is_chosen(llm: LLM, base: dict[str, Any], fields: dict[str, Any]) -> None:
    assert text(llm, **base) == text(llm, **base)
    assert text(llm, **base) != text(llm, **{**base, **fields})


@pytest.mark.parametrize(
    ("multiplier", "fields"),
    [
        (0.1, {"dry_base": 50.0}),
        (1.0, {"dry_allowed_length": 20}),
        (1.0, {"dry_penalty_last_n": 1}),
        (1.0, {"dry_sequence_breakers": [" "]}),
    ],
)
def test_details_of_dry_have_an_effect(llm: LLM, multiplier: float, fields: dict[str, Any]) -> None:
    prompt = "The dog ran. The dog ran. The dog ran. The"
    base = {**GREEDY, "dry_multiplier": multiplier}
    assert text(llm, prompt, **base) != text(llm, prompt, **{**base, **fields})


def test_a_request_without_a_seed_is_random(llm: LLM) -> None:
    assert len({text(llm, max_tokens=32) for _ in range(4)}) > 1
    assert len({text(llm, max_tokens=32, seed=-5) for _ in range(4)}) == 1


def test_n_choices_are_of_one_prompt(llm: LLM) -> None:
    outputs = run(llm, n=4, seed=1, max_tokens=16)
    assert [output.index for output in outputs] == [0, 1, 2, 3]
    assert len({output.text for output in outputs}) == 4
    assert outputs[0] == run(llm, seed=1, max_tokens=16)[0]


def test_texts_end_where_they_are_asked_to(llm: LLM) -> None:
    whole = text(llm, **GREEDY)
    stop = whole[10:14]
    [cut] = run(llm, **GREEDY, stop=stop)
    assert (cut.text, cut.finish_reason, cut.stop_reason) == (whole[: whole.index(stop)], "stop", stop)
    assert run(llm, **GREEDY, stop=["no such text", stop]) == [cut]
    kept = text(llm, **GREEDY, stop=[stop], include_stop_str_in_output=True)
    assert kept == cut.text + stop

    [output] = run(llm, **GREEDY)
    token = output.token_ids[5]
    first = output.token_ids.index(token)
    [ended] = run(llm, **GREEDY, stop_token_ids=[token])
    assert ended.token_ids == output.token_ids[: first + 1]
    assert (ended.finish_reason, ended.stop_reason) == ("stop", token)
    [longer] = run(llm, **GREEDY, stop_token_ids=[token], min_tokens=first + 4)
    assert len(longer.token_ids) >= first + 4


def test_lengths(llm: LLM) -> None:
    eos = llm.eos_token_ids[0]
    ends: dict[str, Any] = {"temperature": 0, "logit_bias": {eos: 1000.0}, "max_tokens": 8}
    [output] = run(llm, **ends)
    assert (output.token_ids, output.text, output.finish_reason, output.stop_reason) == ([eos], "", "stop", None)
    [output] = run(llm, **ends, ignore_eos=True)
    assert (output.token_ids, output.finish_reason) == ([eos] * 8, "length")
    [output] = run(llm, **ends, min_tokens=4)
    assert len(output.token_ids) == 5 and output.token_ids[-1] == eos
    shown = text(llm, **ends, ignore_eos=True, skip_special_tokens=False)
    assert shown == llm.detokenize([eos], skip_special_tokens=False) * 8 != ""
    [output] = run(llm, temperature=0, max_tokens=None, ignore_eos=True)
    assert len(output.token_ids) + len(llm.tokenize(PROMPT)) == llm.max_model_len


def test_biases_favour_and_forbid(llm: LLM) -> None:
    token = run(llm, **GREEDY)[0].token_ids[0]
    assert run(llm, **GREEDY, logit_bias={token: -math.inf})[0].token_ids[0] != token
    assert set(run(llm, **GREEDY, logit_bias={300: 1000.0})[0].token_ids) == {300}
    with pytest.raises(ValueError, match="logit_bias: expected finite numbers"):
        run(llm, logit_bias={300: math.inf})


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"choice": ["red", "green"]}, lambda answer: answer in ("red", "green")),
        ({"regex": r"[0-9]{3}-[a-f]"}, lambda answer: len(answer) == 5 and answer[3] == "-"),
        ({"grammar": 'root ::= "yes" | "no"'}, lambda answer: answer in ("yes", "no")),
        ({"json_object": True}, lambda answer: isinstance(json.loads(answer), dict)),
        (
            {"json": {**OBJECT, "properties": {"a": {"type": "boolean"}}, "required": ["a"]}},
            lambda answer: isinstance(json.loads(answer)["a"], bool),
        ),
        ({"json": '{"enum": [1, 2]}'}, lambda answer: json.loads(answer) in (1, 2)),
    ],
)
def test_answers_have_the_form_that_is_asked_for(llm: LLM, fields: dict[str, Any], fits: Any) -> None:
    for params in (StructuredOutputsParams(**fields), GuidedDecodingParams(**fields)):
        for name in ("structured_outputs", "guided_decoding"):
            form: dict[str, Any] = {name: params}
            [output] = run(llm, **form, temperature=0.5, seed=3, max_tokens=200)
            # An object may be longer than the answer; then its text is only a beginning.
            assert output.finish_reason == "stop" or "json_object" in fields
            assert output.finish_reason != "stop" or fits(output.text), output.text


def test_fields_that_are_not_served_are_refused_by_name(llm: LLM) -> None:
    unsupported: dict[str, Any] = {
        "bad_words": ["a"],
        "allowed_token_ids": [1],
        "logits_processors": [print],
        "detokenize": False,
        "spaces_between_special_tokens": False,
        "flat_logprobs": True,
        "extra_args": {"a": 1},
        "prompt_logprob_token_ids": [1],
        "logprob_token_ids": [1],
        "thinking_token_budget": 5,
        "repetition_detection": object(),
        "skip_reading_prefix_cache": True,
    }
    for name, value in unsupported.items():
        with pytest.raises(ValueError, match=f"^{name}: expected .*not supported"):
            SamplingParams(**{name: value})
    # Their defaults are no demands.
    SamplingParams(bad_words=None, detokenize=True, flat_logprobs=False)
    of_form: list[tuple[str, Any]] = [
        ("structural_tag", "a"),
        ("whitespace_pattern", "a"),
        ("disable_any_whitespace", True),
    ]
    for name, value in of_form:
        with pytest.raises(ValueError, match=f"^{name}: expected .*not supported"):
            StructuredOutputsParams(regex="a", **{name: value})
    with pytest.raises(TypeError, match="best_of"):
        SamplingParams(best_of=2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0}, "n: expected 1 to 128"),
        ({"temperature": math.nan}, "temperature: expected a number, found nan"),
        ({"temperature": math.inf}, "temperature: expected a number of at least 0, found inf"),
        ({"top_p": 1.5}, "top_p: expected 0 to 1, found 1.5"),
        ({"min_p": -0.1}, "min_p: expected 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: expected a number above 0"),
        ({"logprobs": 21}, "logprobs: expected at most 20, found 21"),
        ({"logprobs": -1}, "logprobs: expected a whole number, 0 or more"),
        ({"prompt_logprobs": 21}, "prompt_logprobs: expected at most 20"),
        ({"stop": ""}, "stop: expected strings that are not empty"),
        ({"min_tokens": 17}, "min_tokens: expected at most max_tokens, which is 16"),
        ({"max_tokens": "many"}, "max_tokens: expected a whole number"),
        ({"mirostat": 1}, "mirostat: expected 0 or 2"),
        ({"logit_bias": {"x": 1}}, "logit_bias: expected token ids as keys"),
        ({"structured_outputs": StructuredOutputsParams(regex="(")}, "structured_outputs.regex: "),
    ],
)
def test_values_beyond_their_range_are_named(llm: LLM, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        run(llm, **fields)
    assert message in str(refused.value)


def test_a_form_is_exactly_one() -> None:
    cases: list[tuple[dict[str, Any], str]] = [({}, "none"), ({"regex": "a", "choice": ["a"]}, "regex and choice")]
    for fields, found in cases:
        with pytest.raises(ValueError, match=f"structured_outputs: expected one of .*, found {found}"):
            StructuredOutputsParams(**fields)
    form = StructuredOutputsParams(regex="a")
    with pytest.raises(ValueError, match="guided_decoding: expected none beside structured_outputs"):
        SamplingParams(structured_outputs=form, guided_decoding=form)


def test_params_are_values() -> None:
    params = SamplingParams(
        temperature=0.5,
        stop=["a"],
        logit_bias={1: 2.0},
        structured_outputs=StructuredOutputsParams(regex="a+"),
        output_kind=RequestOutputKind.DELTA,
    )
    assert pickle.loads(pickle.dumps(params)) == params == params.clone() != SamplingParams()
    shown = "SamplingParams(temperature=0.5, stop=['a'], output_kind=<RequestOutputKind.DELTA: 1>, "
    assert repr(params) == shown + "structured_outputs=StructuredOutputsParams(regex='a+'), logit_bias={1: 2.0})"
    assert repr(SamplingParams()) == "SamplingParams()"
    copied = params.clone()
    assert copied.logit_bias is not None
    copied.logit_bias[1] = 3.0
    assert params.logit_bias == {1: 2.0}


def test_every_field_is_tested() -> None:
    """Of a new field it is to be said what it does; the lists are those of this file."""
    source = open(__file__, encoding="utf-8").read()
    fields = [field.name for field in dataclasses.fields(SamplingParams)]
    others = [name for name in fields if name not in source]
    assert others == []
