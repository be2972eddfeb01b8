"""Ollama's client: chats, texts, streams, forms, tools, embeddings and errors; llama.cpp's API by plain HTTP."""

import json
import urllib.request

import ollama
import pytest

CHAT = [{"role": "user", "content": "Tell me about a dog."}]
GREEDY = {"temperature": 0, "num_predict": 12}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.fixture
def llama(server):
    return ollama.Client(host=server.url, headers={"authorization": f"Bearer {server.key}"})


def text_of_chat(client, messages):
    chat = client.chat.completions.create(model="demo", messages=messages, max_tokens=12, temperature=0)
    return chat.choices[0].message.content


def test_chat(llama, client):
    answer = llama.chat(model="demo:latest", messages=CHAT, options=GREEDY, keep_alive="5m")
    assert answer.message.content == text_of_chat(client, CHAT)
    assert (answer.done, answer.done_reason, answer.eval_count) == (True, "length", 12)
    parts = list(llama.chat(model="demo", messages=CHAT, options=GREEDY, stream=True))
    assert "".join(part.message.content for part in parts) == answer.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


def test_generate(llama, client):
    answer = llama.generate(model="demo", prompt=CHAT[0]["content"], system="Be brief.", options=GREEDY)
    assert answer.response == text_of_chat(client, [{"role": "system", "content": "Be brief."}, *CHAT])
    raw = llama.generate(model="demo", prompt="One day", raw=True, options=GREEDY)
    completion = client.completions.create(model="demo", prompt="One day", max_tokens=12, temperature=0)
    assert raw.response == completion.choices[0].text


def test_form_and_tools(llama):
    answer = llama.chat(model="demo", messages=CHAT, format=SCHEMA, options={"num_predict": 300, "seed": 2})
    found = json.loads(answer.message.content)
    assert found["city"] in ("Paris", "Rome") and 1 <= found["days"] <= 9

    def weather(city: str) -> str:
        """The weather.

        Args:
            city: Where.
        """
        return city

    call = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
    messages = [*CHAT, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_name": "weather", "content": "rain"}]
    answer = llama.chat(model="demo", messages=messages, tools=[weather], options=GREEDY)
    assert answer.message.content or answer.message.tool_calls
    plain = llama.chat(model="demo", messages=messages, options=GREEDY)
    assert answer.prompt_eval_count > plain.prompt_eval_count


def test_embed(llama, client):
    answer = llama.embed(model="demo", input=["One day", "The sun"], truncate=True)
    vectors = client.embeddings.create(model="demo", input=["One day", "The sun"], encoding_format="float")
    assert [list(vector) for vector in answer.embeddings] == [item.embedding for item in vectors.data]


def test_models(llama):
    (model,) = llama.list().models
    assert model.model == "demo" and model.size > 0 and model.details.family == "llama"
    shown = llama.show("demo")
    assert "completion" in shown.capabilities and shown.modelinfo["general.architecture"] == "llama"
    assert llama.ps().models[0].model == "demo"


@pytest.mark.parametrize("model, options, status, says", [
    ("other", {}, 404, "model: expected demo"),
    ("demo", {"temperature": -1}, 400, "options.temperature"),
])
def test_errors(llama, model, options, status, says):
    with pytest.raises(ollama.ResponseError) as raised:
        llama.chat(model=model, messages=CHAT, options=options)
    assert raised.value.status_code == status and raised.value.error.startswith(says)


def post(server, path, body):
    headers = {"content-type": "application/json", "authorization": f"Bearer {server.key}"}
    return urllib.request.urlopen(urllib.request.Request(server.url + path, json.dumps(body).encode(), headers)).read().decode()


def test_llama_cpp(server, client):
    body = {"prompt": "One day", "n_predict": 12, "temperature": 0, "cache_prompt": True}
    answer = json.loads(post(server, "/completion", body))
    completion = client.completions.create(model="demo", prompt="One day", max_tokens=12, temperature=0)
    assert answer["content"] == completion.choices[0].text
    assert (answer["stop_type"], answer["timings"]["predicted_n"]) == ("limit", 12)
    chunks = [json.loads(line[6:]) for line in post(server, "/completion", {**body, "stream": True}).split("\n") if line]
    assert "".join(chunk["content"] for chunk in chunks) == answer["content"]
    assert [chunk["stop"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
