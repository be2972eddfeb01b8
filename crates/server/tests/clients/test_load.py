"""Many clients at once, good ones and bad ones.

What is asserted is that nothing is lost, that nothing is mixed up and that memory stays where it is; never how long it
takes.
"""

import asyncio
import json
import random
import re
import socket
import subprocess
import urllib.parse

import aiohttp
import pytest
from conftest import start

CONCURRENT = 256
PROMPTS = ["Once upon a time", "A dog", "The little bear went to the forest and", "One day, a girl named Lily found a"]
# Buffers of connections and free lists of the allocator come and go; a leak of one event a token or one buffer a request
# would be several times this over the rounds below.
FLAT_MIB = 16
ENDS = ["stop", "length", "failed", "cancelled"]


def body(index, stream=True):
    return {
        "model": "demo", "prompt": PROMPTS[index % len(PROMPTS)], "max_tokens": 8 + index % 25, "seed": index,
        "logprobs": index % 3, "stream": stream,
    }


def without_names(text):
    """A response without what depends on time: its id, when it was made, and comments that keep a stream alive."""
    text = re.sub(r"^:.*\n\n", "", text, flags=re.MULTILINE)
    return re.sub(r'"created":\d+', "", re.sub(r'"id":"[^"]*"', "", text))


async def ask(session, server, request):
    async with session.post(f"{server.url}/v1/completions", json=request) as response:
        return response.status, without_names(await response.text())


async def ask_all(server, requests, concurrent):
    """The answers to all requests, so many at a time."""
    connector = aiohttp.TCPConnector(limit=concurrent)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        return await asyncio.gather(*(ask(session, server, request) for request in requests))


@pytest.fixture(scope="module")
def server():
    server = start("--batch-size", "16")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def alone(server):
    """What each request is answered when nothing else runs."""
    return asyncio.run(ask_all(server, [body(index) for index in range(CONCURRENT)], 1))


def idle(server):
    """The figures, once nothing is under way."""
    while True:
        metrics = server.metrics()
        if not (metrics["rustorch_running_sequences"] or metrics["rustorch_queue_length"]):
            return metrics


def test_256_streams_at_once_are_each_what_they_are_alone(server, alone):
    assert all(status == 200 and text.endswith("data: [DONE]\n\n") for status, text in alone)
    resident = []
    for _ in range(8):
        together = asyncio.run(ask_all(server, [body(index) for index in range(CONCURRENT)], CONCURRENT))
        assert together == alone
        resident.append(server.resident_mib())
    print("resident MiB after each round:", [round(mib, 1) for mib in resident])
    assert max(resident[3:]) - resident[2] < FLAT_MIB, resident
    assert idle(server)["rustorch_kv_pages_used"] == 0


def test_a_load_generator_loses_no_answer(server):
    """`hey` sends one request 1024 times, 256 at a time, and reads the streams to their ends."""
    command = ["hey", "-n", "1024", "-c", str(CONCURRENT), "-t", "0", "-m", "POST", "-T", "application/json"]
    command += ["-d", json.dumps(body(7)), f"{server.url}/v1/completions"]
    rounds = []
    for _ in range(3):
        before = idle(server)
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert re.findall(r"\[(\d+)\]\s+(\d+) responses", output) == [("200", "1024")], output
        assert "Error distribution" not in output, output
        after = idle(server)
        ended = {end: after[key] - before[key] for end in ENDS for key in [f"rustorch_sequences_total,{end}"]}
        assert ended == {"stop": 0, "length": 1024, "failed": 0, "cancelled": 0}, "all of one seed"
        rounds.append(server.resident_mib())
        print(re.search(r"Requests/sec:\s+\S+", output)[0], f"resident {rounds[-1]:.1f} MiB")
    assert max(rounds) - rounds[0] < FLAT_MIB, rounds


async def leave(session, server, chance):
    """Reads a little of a long stream and goes."""
    request = {**body(chance.randrange(1000)), "max_tokens": 900, "ignore_eos": True, "n": chance.randint(1, 3)}
    async with session.post(f"{server.url}/v1/completions", json=request) as response:
        assert response.status == 200
        for _ in range(chance.randrange(6)):
            await response.content.readany()
        response.close()


async def read_slowly(server, chance):
    """Reads a stream by a few bytes at a time, through the smallest buffers that there are."""
    address = urllib.parse.urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, (address.hostname, address.port))
    text = json.dumps({**body(chance.randrange(1000)), "max_tokens": 300, "ignore_eos": True, "logprobs": 5})
    head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n"
    await loop.sock_sendall(connection, f"{head}content-length: {len(text)}\r\n\r\n{text}".encode())
    received = b""
    while piece := await loop.sock_recv(connection, 256):
        received += piece
        await asyncio.sleep(0.001)
    connection.close()
    assert received.startswith(b"HTTP/1.1 200") and b"data: [DONE]" in received


async def send_rubbish(session, server, chance):
    """Bodies that are no requests."""
    rubbish = chance.choice([b"", b"{", b"[" * 50_000, b"\xff" * 1000, b'{"prompt": {"a": 1}}', chance.randbytes(5000)])
    headers = {"content-type": "application/json"}
    async with session.post(f"{server.url}/v1/completions", data=rubbish, headers=headers) as response:
        assert response.status == 400 and "error" in await response.json()


async def send_100_megabytes(session, server):
    async def megabytes():
        for _ in range(100):
            yield b" " * (1 << 20)

    headers = {"content-type": "application/json"}
    async with session.post(f"{server.url}/v1/completions", data=megabytes(), headers=headers) as response:
        assert response.status == 413


async def among_bad_ones(server, requests, chance):
    """The answers to good requests while others leave, dawdle and send rubbish."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        good = [ask(session, server, request) for request in requests]
        bad = [leave(session, server, chance) for _ in range(60)]
        bad += [read_slowly(server, chance) for _ in range(12)]
        bad += [send_rubbish(session, server, chance) for _ in range(60)]
        bad += [send_100_megabytes(session, server) for _ in range(2)]
        tasks = good + bad
        order = list(range(len(tasks)))
        chance.shuffle(order)
        answers = await asyncio.gather(*(tasks[index] for index in order))
        by_task = dict(zip(order, answers))
        return [by_task[index] for index in range(len(good))]


def test_bad_clients_cost_the_good_ones_nothing(server, alone):
    chance = random.Random(1)
    resident = []
    for _ in range(6):
        chosen = chance.sample(range(CONCURRENT), 64)
        answers = asyncio.run(among_bad_ones(server, [body(index) for index in chosen], chance))
        assert answers == [alone[index] for index in chosen]
        assert idle(server)["rustorch_kv_pages_used"] == 0
        resident.append(server.resident_mib())
    print("resident MiB after each round:", [round(mib, 1) for mib in resident])
    # The most that may be under way together is reached by chance, so what the first half reached is the measure.
    assert max(resident[3:]) - max(resident[:3]) < FLAT_MIB, resident
    assert server.metrics()["rustorch_sequences_total,cancelled"] > 0
