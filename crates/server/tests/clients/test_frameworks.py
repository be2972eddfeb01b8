"""LangChain, Pydantic AI and Instructor: structured output, tools and streams, through what they send by themselves."""

from typing import Literal

import instructor
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai import Agent, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings


class Trip(BaseModel):
    """A trip to a city."""

    city: Literal["Paris", "Rome"]
    days: int = Field(ge=1, le=9)


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@pytest.fixture
def chat(server):
    return ChatOpenAI(base_url=f"{server.url}/v1", api_key=server.key, model="demo", max_tokens=300, seed=2, max_retries=0)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_structured_output(chat, method):
    trip = chat.with_structured_output(Trip, method=method, strict=True).invoke("Plan a trip.")
    assert isinstance(trip, Trip)


def test_langchain_tools(chat):
    asked = [HumanMessage("How is the weather?")]
    caller = chat.bind_tools([weather], tool_choice="required", strict=True, parallel_tool_calls=False)
    answer = caller.invoke(asked)
    (call,) = answer.tool_calls[:1]
    assert call["name"] == "weather"
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage) and result.content.startswith("rain in ")
    said = chat.bind(max_tokens=8).invoke([*asked, AIMessage("", tool_calls=[call]), result])
    assert said.content
    streamed = None
    for chunk in caller.stream(asked):
        streamed = chunk if streamed is None else streamed + chunk
    assert [c["args"] for c in streamed.tool_calls] == [c["args"] for c in answer.tool_calls]


def test_langchain_embeddings(server):
    embeddings = OpenAIEmbeddings(
        base_url=f"{server.url}/v1", api_key=server.key, model="demo", check_embedding_ctx_length=False, max_retries=0
    )
    assert len(embeddings.embed_documents([f"day {n}" for n in range(40)])) == 40


@pytest.fixture
def model(server):
    return OpenAIChatModel("demo", provider=OpenAIProvider(base_url=f"{server.url}/v1", api_key=server.key))


def test_pydantic_ai_structured_output(model):
    settings = ModelSettings(max_tokens=300, seed=2)
    result = Agent(model, output_type=ToolOutput(Trip), model_settings=settings).run_sync("Plan a trip.")
    assert isinstance(result.output, Trip)


def test_pydantic_ai_text(model):
    settings = ModelSettings(max_tokens=8, temperature=0)
    result = Agent(model, instructions="Be brief.", model_settings=settings).run_sync("Tell me about a dog.")
    assert result.output and result.usage.output_tokens == 8


class Closed(Trip):
    """A trip to a city."""

    model_config = ConfigDict(extra="forbid")


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_instructor(client, mode):
    patched = instructor.from_openai(client, mode=mode)
    asked = [{"role": "user", "content": "Plan a trip."}]
    request = {"model": "demo", "messages": asked, "max_tokens": 300, "seed": 2, "max_retries": 0}
    assert isinstance(patched.create(response_model=Closed, **request), Closed)
    *_, last = patched.create_partial(response_model=Closed, **request)
    assert Closed.model_validate(last.model_dump())
