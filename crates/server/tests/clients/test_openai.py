"""The official client against the server: every call of the API that is served, and every error class."""

import io
import json
import math
import subprocess

import openai
import pytest
from conftest import BINARY, start
from openai.types import Batch, Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

STORY = "Once upon a time"
CHAT = [{"role": "user", "content": "Tell me about a dog."}]


def test_models(client):
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").object == "model"


def test_completion(client):
    answer = client.completions.create(model="demo", prompt=STORY, max_tokens=12, seed=1, n=2, temperature=0.7)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.text and choice.finish_reason == "length" for choice in answer.choices)
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == 24 + answer.usage.prompt_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0


def test_completion_of_several_prompts(client):
    answer = client.completions.create(model="demo", prompt=[STORY, "The dog"], max_tokens=4, temperature=0, n=2)
    assert len(answer.choices) == 4
    assert answer.choices[0].text == answer.choices[1].text, "greedy choices of one prompt"
    assert answer.choices[0].text != answer.choices[2].text


def test_completion_logprobs(client):
    answer = client.completions.create(model="demo", prompt=STORY, max_tokens=6, temperature=0, logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert top[token] == logprob == max(top.values()) and logprob <= 0


def test_echo(client):
    """What was generated gets the same log-probabilities when it is scored as a prompt."""
    parameters = dict(model="demo", prompt=STORY, temperature=0, logprobs=2, echo=True)
    said = client.completions.create(**parameters, max_tokens=6).choices[0]
    assert said.text.startswith(STORY) and said.logprobs.token_logprobs[0] is None
    assert said.text.endswith("".join(said.logprobs.tokens[-6:]))
    scored = client.completions.create(**{**parameters, "prompt": said.text}, max_tokens=0)
    assert scored.choices[0].text == said.text and scored.usage.completion_tokens == 0
    assert scored.choices[0].logprobs == said.logprobs


def test_completion_stream(client):
    parameters = dict(model="demo", prompt=STORY, max_tokens=30, seed=5, n=2, stop=["."])
    whole = client.completions.create(**parameters)
    texts, reasons, usage = ["", ""], [None, None], None
    for chunk in client.completions.create(**parameters, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        usage = chunk.usage or usage
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage.total_tokens == whole.usage.total_tokens


def test_chat(client):
    answer = client.chat.completions.create(model="demo", messages=CHAT, max_completion_tokens=16, seed=2)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.id.startswith("chatcmpl-")


def test_chat_logprobs(client):
    answer = client.chat.completions.create(
        model="demo", messages=CHAT, max_tokens=5, temperature=0, logprobs=True, top_logprobs=2
    )
    content = answer.choices[0].logprobs.content
    assert "".join(token.token for token in content) == answer.choices[0].message.content
    for token in content:
        assert token.top_logprobs[0].logprob == token.logprob and len(token.top_logprobs) == 2
        assert bytes(token.bytes).decode() == token.token


def test_chat_stream(client):
    """The client's own helper puts the pieces together, and checks their shape in doing so; it takes no answer for whole
    that ended at its length."""
    parameters = dict(model="demo", messages=CHAT, max_tokens=200, temperature=0, stop=".")
    whole = client.chat.completions.create(**parameters)
    with client.chat.completions.stream(**parameters, stream_options={"include_usage": True}) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert final.usage.completion_tokens == whole.usage.completion_tokens


def test_async_client(server):
    import asyncio

    async def run():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
            calls = (client.completions.create(model="demo", prompt=STORY, max_tokens=8, seed=i) for i in range(16))
            return await asyncio.gather(*calls)

    assert all(answer.choices[0].text for answer in asyncio.run(run()))


def test_sampling_parameters(client):
    def text(**parameters):
        answer = client.completions.create(model="demo", prompt=STORY, max_tokens=8, **parameters)
        return answer.choices[0].text

    greedy = text(temperature=0)
    assert text(temperature=0, seed=4) == greedy
    assert text(seed=3) == text(seed=3)
    first = client.post("/../tokenize", cast_to=object, body={"prompt": greedy, "add_special_tokens": False})
    banned = {str(token): -100 for token in first["tokens"]}
    assert text(temperature=0, logit_bias=banned) != greedy
    assert text(temperature=0, presence_penalty=2, frequency_penalty=2) != ""
    assert text(temperature=5, seed=1, extra_body={"top_k": 1}) == greedy


def test_embeddings(client):
    """The client asks for base64 unless told otherwise."""
    answer = client.embeddings.create(model="demo", input=[STORY, "The dog", STORY])
    floats = client.embeddings.create(model="demo", input=[STORY], encoding_format="float")
    vectors = [entry.embedding for entry in answer.data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert vectors[0] == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-5) for vector in vectors)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


@pytest.mark.parametrize(
    "error, param, call",
    [
        (openai.NotFoundError, "model", lambda c: c.completions.create(model="gpt", prompt="a")),
        (openai.NotFoundError, "model", lambda c: c.models.retrieve("gpt")),
        (openai.BadRequestError, "prompt_logprobs", lambda c: c.completions.create(
            model="demo", prompt="a", stream=True, extra_body={"prompt_logprobs": 1})),
        (openai.BadRequestError, "best_of", lambda c: c.completions.create(model="demo", prompt="a", n=2, best_of=1)),
        (openai.BadRequestError, "suffix", lambda c: c.completions.create(model="demo", prompt="a", suffix="b")),
        (openai.BadRequestError, "temperature", lambda c: c.completions.create(model="demo", prompt="a", temperature=-1)),
        (openai.BadRequestError, "tools[0].function.name", lambda c: c.chat.completions.create(
            model="demo", messages=CHAT, tools=[{"type": "function", "function": {"name": "a b"}}])),
        (openai.BadRequestError, "messages", lambda c: c.chat.completions.create(model="demo", messages=[])),
        (openai.NotFoundError, None, lambda c: c.files.retrieve("file-1")),
        (openai.AuthenticationError, None, lambda c: c.with_options(api_key="sk-wrong").models.list()),
    ],
)
def test_errors(client, error, param, call):
    with pytest.raises(error) as raised:
        call(client)
    assert raised.value.param == param
    assert raised.value.request_id


def test_a_full_queue_is_a_rate_limit_with_a_time_to_wait():
    server = start("--batch-size", "1", "--max-queue", "0")
    client = server.client()
    with client.completions.create(
        model="demo", prompt=STORY, max_tokens=900, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as raised:
            client.completions.create(model="demo", prompt="a")
        assert int(raised.value.response.headers["retry-after"]) >= 1
    # The client's own retries bring the next one through.
    answer = server.client(max_retries=50).completions.create(model="demo", prompt="a", max_tokens=1)
    assert answer.usage.completion_tokens == 1
    assert server.stop() == 0


def test_files(client):
    content = b'{"custom_id": "a"}\n'
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(content), "in.jsonl", "batch")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == content
    others = [client.files.create(file=("other.jsonl", io.BytesIO(b"{}")), purpose="batch").id for _ in range(3)]
    listed = [entry.id for entry in client.files.list(limit=2)]
    assert set(listed) >= {file.id, *others} and len(listed) == len(set(listed)), "the client follows the pages"
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def lines(count):
    """A batch with all endpoints and, in the end, a line that cannot be served."""
    for index in range(count):
        completion = {"model": "demo", "prompt": f"{STORY} {index}", "max_tokens": 8}
        chat = {"model": "demo", "messages": CHAT, "max_tokens": 8}
        embedding = {"model": "demo", "input": f"{STORY} {index}"}
        url, body = [("completions", completion), ("chat/completions", chat), ("embeddings", embedding)][index % 3]
        yield {"custom_id": f"r{index}", "method": "POST", "url": f"/v1/{url}", "body": body}
    yield {"custom_id": "wrong", "method": "POST", "url": "/v1/completions", "body": {"model": "demo", "n": 0}}


def check_results(results, count):
    """Reads results with the client's types."""
    types = [Completion, ChatCompletion, CreateEmbeddingResponse]
    assert {result["custom_id"] for result in results} == {f"r{index}" for index in range(count)}
    for result in results:
        assert result["error"] is None and result["response"]["status_code"] == 200
        kind = types[int(result["custom_id"][1:]) % 3]
        answer = kind.model_validate(result["response"]["body"], strict=True)
        assert answer.model == "demo"


def test_batch_output_is_read_by_the_clients_types(tmp_path):
    """Of `rustorch batch`, the command."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines(9)))
    subprocess.run([BINARY, "batch", "--fail-on", "all", "-i", source, "-o", target], check=True, stderr=subprocess.DEVNULL)
    results = [json.loads(line) for line in target.read_text().splitlines()]
    check_results([result for result in results if result["custom_id"] != "wrong"], 9)


def test_batch(client):
    """All of a batch's life through the client."""
    content = "".join(json.dumps(line) + "\n" for line in lines(9)).encode()
    source = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=source.id, endpoint="/v1/completions", completion_window="24h", metadata={"a": "b"}
    )
    batch = finished(client, batch)
    assert batch.status == "completed" and batch.metadata == {"a": "b"}
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (10, 9, 1)
    read = lambda file_id: [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    check_results(read(batch.output_file_id), 9)
    assert [line["custom_id"] for line in read(batch.error_file_id)] == ["wrong"]
    assert batch.id in [entry.id for entry in client.batches.list(limit=1)]


def finished(client, batch: Batch) -> Batch:
    while batch.status not in ("completed", "failed", "cancelled"):
        batch = client.batches.retrieve(batch.id)
    return batch


def test_a_batch_survives_kill_9(tmp_path):
    content = "".join(json.dumps(line) + "\n" for line in lines(120)).encode()
    server = start("--data-dir", str(tmp_path))
    source = server.client().files.create(file=("in.jsonl", content), purpose="batch")
    batch = server.client().batches.create(
        input_file_id=source.id, endpoint="/v1/completions", completion_window="24h"
    )
    kills = 0
    while batch.status not in ("completed", "failed"):
        if kills < 5 and batch.request_counts.completed > kills * 15:
            server.process.kill()
            server.process.wait()
            server = start("--data-dir", str(tmp_path))
            kills += 1
        batch = server.client().batches.retrieve(batch.id)
    assert batch.status == "completed" and kills > 1
    results = [json.loads(line) for line in server.client().files.content(batch.output_file_id).text.splitlines()]
    assert len(results) == 120
    check_results(results, 120)
    assert server.stop() == 0
