"""The official client's Responses API: texts, structured output, tools and the client's own reader of streams."""

import json
from typing import Literal

import openai
import pytest
from pydantic import BaseModel

CHAT = [{"role": "user", "content": "Tell me about a dog."}]
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of the next days.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]
    days: int


def test_text(client):
    chat = client.chat.completions.create(model="demo", messages=CHAT, max_tokens=12, temperature=0)
    answer = client.responses.create(
        model="demo", input=CHAT, max_output_tokens=12, temperature=0, store=True, metadata={"a": "b"}
    )
    assert answer.output_text == chat.choices[0].message.content
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 12 and answer.usage.input_tokens == chat.usage.prompt_tokens
    assert answer.metadata == {"a": "b"} and answer.id.startswith("resp_")
    # What was said goes back as it came.
    again = client.responses.create(
        model="demo", instructions="Be brief.", input=[*CHAT, *answer.output, {"role": "user", "content": "And?"}]
    )
    assert again.status == "completed" and again.output_text


def test_stream(client):
    parameters = dict(model="demo", input="Tell me about a dog.", temperature=0)
    whole = client.responses.create(**parameters)
    types, text, numbers = [], "", []
    for event in client.responses.create(**parameters, stream=True):
        types.append(event.type)
        numbers.append(event.sequence_number)
        text += event.delta if event.type == "response.output_text.delta" else ""
    assert numbers == list(range(len(types)))
    assert types[:2] == ["response.created", "response.in_progress"] and types[-1] == "response.completed"
    assert text == whole.output_text
    with client.responses.stream(**parameters) as stream:
        final = stream.get_final_response()
    assert final.output_text == whole.output_text and final.status == "completed"


def test_parse(client):
    parameters = dict(model="demo", input=CHAT, text_format=Weather, temperature=0)
    assert isinstance(client.responses.parse(**parameters).output_parsed, Weather)
    with client.responses.stream(**parameters) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Weather)


def test_tools(client):
    parameters = dict(
        model="demo", input=CHAT, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, extra_body={"seed": 4}
    )
    answer = client.responses.create(**parameters)
    (call,) = answer.output
    assert call.type == "function_call" and call.name == "weather"
    Weather.model_validate_json(call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": json.dumps({"rain": True})}
    said = client.responses.create(
        model="demo", input=[*CHAT, call, result], tools=[WEATHER], tool_choice="none", max_output_tokens=8
    )
    assert said.output_text
    with client.responses.stream(**parameters) as stream:
        pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert "".join(pieces) == final.output[0].arguments == call.arguments


@pytest.mark.parametrize(
    "param, fields",
    [
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("background", {"background": True}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("input[0].content[0].type", {"input": [
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}),
    ],
)
def test_refusals(client, param, fields):
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(**{"model": "demo", "input": "a", **fields})
    assert raised.value.param == param
