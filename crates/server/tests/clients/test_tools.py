"""The official client's structured output and tools, which the demo model can only answer because they are enforced."""

import json
from typing import Literal

from pydantic import BaseModel

CHAT = [{"role": "user", "content": "How is the weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of the next days.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]
    days: int


def assert_valid(call):
    assert call.function.name == "weather"
    weather = Weather.model_validate_json(call.function.arguments)
    assert 1 <= weather.days <= 9


def test_parse(client):
    answer = client.chat.completions.parse(
        model="demo", messages=CHAT, response_format=Weather, max_tokens=300, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_required_call(client):
    answer = client.chat.completions.create(
        model="demo", messages=CHAT, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_tokens=300
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    assert_valid(call)
    # The result goes back to the model.
    result = {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"rain": True})}
    messages = [*CHAT, choice.message, result]
    answer = client.chat.completions.create(
        model="demo", messages=messages, tools=[WEATHER], tool_choice="none", max_tokens=8
    )
    assert answer.choices[0].message.content


def test_streamed_call(client):
    parameters = dict(
        model="demo",
        messages=CHAT,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=300,
        seed=3,
    )
    whole = client.chat.completions.create(**parameters).choices[0].message.tool_calls[0]
    names, ids, arguments = [], [], ""
    for chunk in client.chat.completions.create(**parameters, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.index == 0
            names += [call.function.name] if call.function.name else []
            ids += [call.id] if call.id else []
            arguments += call.function.arguments or ""
    assert names == ["weather"] and len(ids) == 1
    assert arguments == whole.function.arguments
    with client.chat.completions.stream(**parameters) as stream:
        final = stream.get_final_completion()
    assert_valid(final.choices[0].message.tool_calls[0])
    assert final.choices[0].finish_reason == "tool_calls"
