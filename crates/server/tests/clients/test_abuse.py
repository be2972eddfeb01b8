"""Clients that take more than their share. What is asserted is what they cost: memory, and never a good request."""

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import threading
import urllib.parse
import urllib.request

import openai
import pytest
from conftest import start

MIB = 1 << 20
REQUEST_MEMORY_MIB = 128
# Of allocator and connections, beyond what the server promises for requests.
SLACK_MIB = 64


@pytest.fixture(scope="module")
def server():
    server = start("--request-memory", f"{REQUEST_MEMORY_MIB}M")
    yield server
    assert server.stop() == 0


def good(server):
    """A request like any other."""
    return server.client().completions.create(model="demo", prompt="Once upon a time", max_tokens=8, seed=1).choices[0].text


def connect(server, source="127.0.0.1"):
    address = urllib.parse.urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), source_address=(source, 0))


def head(path, length):
    return f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n".encode()


def ask(server, path, body, source="127.0.0.1"):
    """Status and body of the answer."""
    connection = connect(server, source)
    connection.sendall(head(path, len(body)).replace(b"host: a", b"host: a\r\nconnection: close") + body)
    answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    return int(re.match(rb"HTTP/1.1 (\d+)", answer)[1]), answer.partition(b"\r\n\r\n")[2]


def post(server, path, body, source="127.0.0.1"):
    """The status of the answer."""
    return ask(server, path, body, source)[0]


def peak_mib(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) / 1024


def at_once(work, count):
    results = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_stalled_bodies_hold_a_bounded_memory(server):
    text, before = good(server), server.resident_mib()
    stalled = [connect(server) for _ in range(40)]
    body = b" " * (7 * MIB)
    for connection in stalled:
        connection.sendall(head("/v1/completions", len(body) + 1))
    for connection in stalled:
        connection.sendall(body)
    assert good(server) == text
    assert server.metrics()["rustorch_body_memory_bytes"] <= REQUEST_MEMORY_MIB / 4 * MIB
    assert peak_mib(server) < before + REQUEST_MEMORY_MIB / 4 + SLACK_MIB
    for connection in stalled:
        connection.close()


HOSTILE = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}] * 200_000}, 400),
    ("/v1/completions", {"prompt": [[]] * 2_000_000}, 400),
    ("/v1/completions", {"prompt": "a", "max_tokens": 1, "logit_bias": {str(index): 1 for index in range(400_000)}}, 400),
    ("/v1/completions", {"prompt": "a", "max_tokens": 1, "stop": ["x" * 1_900_000 + str(index) for index in range(4)]}, 400),
    ("/tokenize", {"prompt": "a" * 6_000_000}, 200),
]


@pytest.mark.parametrize("path, body, status", HOSTILE)
def test_large_requests_take_turns(server, path, body, status):
    text, body = good(server), json.dumps(body).encode()
    # There is room for the bodies of four at a time; which of the others find it depends on who is how fast.
    statuses = at_once(lambda: post(server, path, body), 8)
    assert status in statuses and set(statuses) <= {status, 503}
    assert good(server) == text


def test_requests_without_memory_are_refused():
    """The server's address space ends a little above what it has: large requests are refused, and all else goes on."""
    server = start()
    text, = set(at_once(lambda: good(server), 16))
    with open(f"/proc/{server.process.pid}/status") as status:
        size = int(re.search(r"VmSize:\s+(\d+) kB", status.read())[1]) * 1024
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (size + 160 * MIB, hard))
    long = "a" * 6_000_000
    # Of each API, where its form of an error has the message.
    for path, body, message_of in [
        ("/tokenize", {"prompt": long}, lambda answer: answer["error"]["message"]),
        ("/v1/completions", {"prompt": long}, lambda answer: answer["error"]["message"]),
        ("/v1/embeddings", {"input": long}, lambda answer: answer["error"]["message"]),
        ("/v1/messages", {"messages": [{"role": "user", "content": long}], "max_tokens": 1},
         lambda answer: answer["type"] == "error" and answer["error"]["message"]),
        ("/api/chat", {"messages": [{"role": "user", "content": long}]}, lambda answer: answer["error"]),
    ]:
        for status, answer in at_once(lambda: ask(server, path, json.dumps(body).encode()), 4):
            assert (status, "no memory" in message_of(json.loads(answer))) == (503, True), answer
        assert good(server) == text
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (hard, hard))
    assert post(server, "/tokenize", json.dumps({"prompt": long}).encode()) == 200
    assert server.stop() == 0


def test_idle_connections_block_nobody(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    idle = [connect(server) for _ in range(1100)]
    assert good(server)
    assert server.metrics()["rustorch_connections"] <= 1024
    for connection in idle:
        connection.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_full_disk_is_told(tmp_path):
    """On a small file system of its own, which only root can mount."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "full", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system of our own")
    try:
        server = start("--data-dir", str(tmp_path / "data"))
        upload = lambda: server.client().files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
        health = lambda: json.load(urllib.request.urlopen(f"{server.url}/health"))
        kept = upload().id
        with open(tmp_path / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(b"\0" * 4096):
                pass
        for create in [
            upload,
            lambda: server.client().batches.create(input_file_id=kept, endpoint="/v1/completions", completion_window="24h"),
        ]:
            with pytest.raises(openai.APIStatusError) as refused:
                create()
            assert (refused.value.status_code, refused.value.code) == (507, "storage_full")
        assert health()["files"]["reason"].startswith("No space left on device")
        assert os.listdir(tmp_path / "data" / "batches") == []
        assert good(server)
        os.remove(tmp_path / "ballast")
        while health() != {"status": "ok"}:
            pass
        assert upload().id != kept
        assert server.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=False)


def test_limits_are_named(server):
    with pytest.raises(openai.BadRequestError, match="stop: expected at most 64 entries, found 65"):
        server.client().completions.create(model="demo", prompt="a", stop=["x"] * 65)


def test_clients_take_turns():
    """One address fills what it may of the queue; another's request neither is refused nor waits for all of that."""
    server = start("--batch-size", "2", "--max-queue", "40")
    long = json.dumps({"model": "demo", "prompt": "a", "max_tokens": 300, "ignore_eos": True}).encode()
    greedy = [threading.Thread(target=post, args=(server, "/v1/completions", long)) for _ in range(37)]
    for thread in greedy:
        thread.start()
    while server.metrics()["rustorch_sequences_of_a_client"] < 37:
        pass
    assert post(server, "/v1/completions", long) == 429
    assert post(server, "/v1/completions", long, source="127.0.0.2") == 200
    # Those that ran, and those that ran beside it; at a time there are two.
    assert server.metrics()["rustorch_sequences_total,length"] <= 8
    for thread in greedy:
        thread.join()
    assert server.stop() == 0
