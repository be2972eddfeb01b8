"""What lm-eval's `local-completions` and `local-chat-completions` send and read, without the package, which brings 155 MB:
lm_eval_run.py runs that. Tokens come from the server, as with `tokenizer_backend=remote`."""

import json
import urllib.request
from dataclasses import dataclass

import pytest

# A context, continuations, and which is right.
QUESTIONS = [
    ("Once upon a", [" time", " stone", " zebra"], 0),
    ("The little girl was very", [" upon", " zebra", " happy"], 2),
]


@dataclass
class Harness:
    url: str
    key: str

    def request(self, path: str, body: dict | None = None) -> dict:
        request = urllib.request.Request(f"{self.url}{path}", data=body and json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        request.add_header("authorization", f"Bearer {self.key}")
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def encode(self, text: str) -> list[int]:
        return self.request("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]

    def loglikelihoods(self, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is the most likely one."""
        wholes = [self.encode(context + continuation) for context, continuation in pairs]
        lengths = [len(self.encode(context)) for context, _ in pairs]
        body = {"model": "demo", "prompt": wholes, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
        choices = sorted(self.request("/v1/completions", body)["choices"], key=lambda choice: choice["index"])
        results = []
        for choice, length in zip(choices, lengths, strict=True):
            logprobs = choice["logprobs"]["token_logprobs"][length:-1]
            tops = choice["logprobs"]["top_logprobs"][length:-1]
            results.append((sum(logprobs), all(p == max(top.values()) for p, top in zip(logprobs, tops, strict=True))))
        return results


@pytest.fixture
def harness(server):
    return Harness(server.url, server.key)


def test_the_tokenizer_is_found(harness):
    assert "eos_token" in harness.request("/tokenizer_info")
    text = harness.request("/detokenize", {"tokens": harness.encode("One day")})["prompt"]
    assert text.strip() == "One day"


def test_multiple_choice(harness):
    pairs = [(context, choice) for context, choices, _ in QUESTIONS for choice in choices]
    together = harness.loglikelihoods(pairs)
    assert together == [harness.loglikelihoods([pair])[0] for pair in pairs], "a request alone gets the same"
    for index, (_, choices, right) in enumerate(QUESTIONS):
        scores = [score for score, _ in together[index * 3 :][:3]]
        assert max(range(3), key=scores.__getitem__) == right, scores
    assert together[0][1], "nothing is likelier than that once upon a time"


def test_generation(harness):
    message = {"role": "user", "content": "Tell me about a dog.", "type": "text"}
    body = {"messages": [message], "model": "demo", "max_tokens": 40, "temperature": 0, "stop": [".", "\n"], "seed": 1234}
    (choice,) = harness.request("/v1/chat/completions", body)["choices"]
    assert choice["message"]["content"] and "." not in choice["message"]["content"]
