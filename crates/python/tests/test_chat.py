"""Conversations, by the demo model's chat template."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rustorch_llama import LLM, SamplingParams

CHAT = [{"role": "user", "content": "Tell me about a dog."}]
OTHER = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
GREEDY = SamplingParams(temperature=0, max_tokens=12, logprobs=1)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]},
        },
    }
]


def test_one_conversation_or_several(llm: LLM) -> None:
    [one] = llm.chat(CHAT, GREEDY, use_tqdm=False)
    both = llm.chat([CHAT, OTHER], GREEDY, use_tqdm=False)
    assert [output.outputs for output in both][0] == one.outputs != both[1].outputs
    assert one.prompt is not None and "Tell me about a dog." in one.prompt
    assert one.outputs[0].logprobs is not None
    # The prompt is the template's: as tokens it gets the same answer.
    [same] = llm.generate(one.prompt_token_ids, GREEDY, use_tqdm=False)
    assert same.outputs == one.outputs
    params = [GREEDY, SamplingParams(max_tokens=3)]
    assert len(llm.chat([CHAT, OTHER], params, use_tqdm=False)[1].outputs[0].token_ids) == 3
    with pytest.raises(ValueError, match="sampling_params: expected 2, one for each conversation, found 1"):
        llm.chat([CHAT, OTHER], [GREEDY], use_tqdm=False)


def test_a_prompt_ends_as_it_is_asked_to(llm: LLM) -> None:
    [usual] = llm.chat(CHAT, GREEDY, use_tqdm=False)
    [bare] = llm.chat(CHAT, GREEDY, use_tqdm=False, add_generation_prompt=False)
    assert len(bare.prompt_token_ids) < len(usual.prompt_token_ids)
    begun = [*CHAT, {"role": "assistant", "content": "The dog was"}]
    options: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
    [continued] = llm.chat(begun, GREEDY, use_tqdm=False, **options)
    assert continued.prompt is not None and continued.prompt.endswith("The dog was")
    with pytest.raises(ValueError, match="continue_final_message: expected false beside add_generation_prompt"):
        llm.chat(begun, GREEDY, use_tqdm=False, continue_final_message=True)


def test_answers_have_the_form_that_is_asked_for(llm: LLM) -> None:
    schema = {"properties": {"dog": {"type": "boolean"}}, "required": ["dog"], "additionalProperties": False}
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", **schema}}}
    params = SamplingParams(temperature=0, max_tokens=100)
    [output] = llm.chat(CHAT, params, use_tqdm=False, response_format=response_format)
    assert isinstance(json.loads(output.outputs[0].text)["dog"], bool)
    with pytest.raises(ValueError, match="response_format"):
        llm.chat(CHAT, params, use_tqdm=False, response_format={"type": "xml"})


def test_tools_are_in_the_prompt_and_can_be_demanded(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=150)
    [output] = llm.chat(CHAT, params, use_tqdm=False, tools=TOOLS, tool_choice="required")
    assert output.prompt is not None and "weather" in output.prompt
    assert "weather" in output.outputs[0].text and "city" in output.outputs[0].text
    with pytest.raises(ValueError, match="tool_choice: expected tools"):
        llm.chat(CHAT, params, use_tqdm=False, tool_choice="required")


def test_wrong_conversations_are_named(llm: LLM) -> None:
    def refused(message: str, messages: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            llm.chat(messages, GREEDY, use_tqdm=False, **options)

    refused("messages: expected at least one, found none", [])
    refused(r"messages\[1\]: .*role", [CHAT, [{"content": "no role"}]])
    refused(r"chat_template_kwargs.messages: ", CHAT, chat_template_kwargs={"messages": []})
    # A variable that the template does not use changes nothing.
    llm.chat(CHAT, GREEDY, use_tqdm=False, chat_template_kwargs={"enable_thinking": False})
