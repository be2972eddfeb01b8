"""Anthropic's client: texts, streams, tools, counts and every error class."""

import json

import anthropic
import pytest

CHAT = [{"role": "user", "content": "Tell me about a dog."}]
# Newer models of Anthropic take no such fields, so neither do the functions of its client.
GREEDY = {"temperature": 0}
WEATHER = {
    "name": "weather",
    "description": "The weather of the next days.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


def assert_valid(call):
    assert call.type == "tool_use" and call.name == "weather"
    assert call.input["city"] in ("Paris", "Rome") and 1 <= call.input["days"] <= 9


@pytest.fixture
def claude(server):
    """The client, which sends the key as `x-api-key` and must not hide a failure by trying again."""
    return anthropic.Anthropic(base_url=server.url, api_key=server.key, max_retries=0)


def test_text(claude, client):
    chat = client.chat.completions.create(model="demo", messages=CHAT, max_tokens=12, temperature=0)
    answer = claude.messages.create(model="demo", messages=CHAT, max_tokens=12, extra_body=GREEDY, metadata={"user_id": "a"})
    assert answer.content[0].text == chat.choices[0].message.content
    assert answer.stop_reason == "max_tokens" and answer.usage.output_tokens == 12
    assert answer._request_id
    counted = claude.messages.count_tokens(model="demo", messages=CHAT)
    assert counted.input_tokens == chat.usage.prompt_tokens
    assert counted.input_tokens == answer.usage.input_tokens + answer.usage.cache_read_input_tokens
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    more = claude.messages.count_tokens(model="demo", messages=CHAT, system=system, tools=[WEATHER])
    assert more.input_tokens > counted.input_tokens


def test_stop_sequence(claude):
    answer = claude.messages.create(
        model="demo", messages=CHAT, max_tokens=200, extra_body={**GREEDY, "top_k": 40}, stop_sequences=["zebra", "."]
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", ".")


def test_stream(claude):
    parameters = dict(model="demo", messages=CHAT, max_tokens=60, extra_body=GREEDY, system="Be brief.")
    whole = claude.messages.create(**parameters)
    with claude.messages.stream(**parameters) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text
    assert (final.stop_reason, final.stop_sequence) == (whole.stop_reason, whole.stop_sequence)
    assert final.usage.output_tokens == whole.usage.output_tokens
    types = [event.type for event in claude.messages.create(**parameters, stream=True)]
    assert types[0] == "message_start" and types[-2:] == ["message_delta", "message_stop"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_tools(claude, choice):
    choice = {**choice, "disable_parallel_tool_use": True}
    parameters = dict(
        model="demo", messages=CHAT, tools=[WEATHER], tool_choice=choice, max_tokens=300, extra_body={"seed": 2}
    )
    answer = claude.messages.create(**parameters)
    (call,) = answer.content
    assert_valid(call)
    assert answer.stop_reason == "tool_use"
    with claude.messages.stream(**parameters) as stream:
        assert stream.get_final_message().content[0].input == call.input
    result = {"type": "tool_result", "tool_use_id": call.id, "content": json.dumps({"rain": True})}
    messages = [*CHAT, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    said = claude.messages.create(
        model="demo", messages=messages, tools=[WEATHER], tool_choice={"type": "none"}, max_tokens=8
    )
    assert said.content[0].text


@pytest.mark.parametrize(
    "error, message, call",
    [
        (anthropic.NotFoundError, "model: expected demo", lambda c: c.messages.create(
            model="gpt", messages=CHAT, max_tokens=1)),
        (anthropic.BadRequestError, "messages[0].content[0].type", lambda c: c.messages.create(
            model="demo", max_tokens=1, messages=[{"role": "user", "content": [
                {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}]}])),
        (anthropic.BadRequestError, "tools[0].type", lambda c: c.messages.create(
            model="demo", max_tokens=1, messages=CHAT, tools=[{"type": "web_search_20250305", "name": "web_search"}])),
        (anthropic.AuthenticationError, "authorization", lambda c: c.with_options(api_key="wrong").messages.create(
            model="demo", messages=CHAT, max_tokens=1)),
    ],
)
def test_errors(claude, error, message, call):
    with pytest.raises(error) as raised:
        call(claude)
    assert raised.value.body["type"] == "error"
    assert raised.value.body["error"]["message"].startswith(message)
    assert raised.value.request_id
