"""Good and bad clients for as long as one likes, with kills, full disks and read-only disks: run by .ci/full.

    RUSTORCH=target/release/rustorch target/clients/bin/python crates/server/tests/clients/soak.py --seconds 3600

In the first half the server lives, and its memory must stay where it is. In the second half it is killed at random moments
and started again, its disk is read-only for a while, and as root on Linux it is full for a while. Every good request must be answered as it
was alone, whatever goes on; every batch that was acknowledged must end with every line answered so, and every uploaded file be whole. Prints what was done
and exits 1 at the first thing that is not right. Needs a C compiler, for readonly.c.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import aiohttp
from test_load import PROMPTS, body, without_names

BINARY = os.environ["RUSTORCH"]
REQUESTS = [body(index, stream=index % 2 == 0) for index in range(96)]
BATCH_LINES = 24
# Buffers and free lists come and go with what is under way by chance.
FLAT_MIB = 48
UNREACHABLE = (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError)


class Site:
    """A server on one port and one data folder, through all its lives. The folder is read-only for it while `switch` exists."""

    def __init__(self, data, beside):
        self.switch, library = os.path.join(beside, "switch"), os.path.join(beside, "readonly.so")
        source = os.path.join(os.path.dirname(__file__), "readonly.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        folder = os.path.join(os.path.realpath(data), "")
        self.environment = {**os.environ, "LD_PRELOAD": library, "FOLDER": folder, "SWITCH": self.switch}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data, self.lives, self.process, self.is_up = data, 0, None, asyncio.Event()

    async def start(self):
        command = [BINARY, "serve", "--port", str(self.port), "--data-dir", self.data, "--batch-size", "16"]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stderr=self.log, env=self.environment)
        async with aiohttp.ClientSession() as session:
            while True:
                assert self.process.poll() is None, f"the server ended: {self.said()}"
                with contextlib.suppress(*UNREACHABLE):
                    async with session.get(f"{self.url}/health") as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.05)
        self.lives += 1
        self.is_up.set()

    async def kill(self):
        self.is_up.clear()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        await self.start()

    def said(self):
        self.log.seek(0)
        return self.log.read()[-2000:]

    def resident_mib(self):
        with open(f"/proc/{self.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Soak:
    def __init__(self, site, seconds, seed):
        self.site, self.chance = site, random.Random(seed)
        self.begun, self.seconds = time.monotonic(), seconds
        self.counts = dict.fromkeys(["good", "again", "bad", "batches", "refused batches", "kills", "full", "read-only"], 0)
        self.alone, self.files, self.batches, self.resident, self.disk_is_well = [], [], [], [], True

    def share(self):
        """How much of the time is over."""
        return (time.monotonic() - self.begun) / self.seconds

    async def ask(self, session, request):
        async with session.post(f"{self.site.url}/v1/completions", json=request) as response:
            return response.status, await response.text()

    async def good_client(self, session):
        """Asks, and asks again when the server was killed meanwhile."""
        while self.share() < 1:
            index = self.chance.randrange(len(REQUESTS))
            while True:
                await self.site.is_up.wait()
                life = self.site.lives
                try:
                    status, text = await self.ask(session, REQUESTS[index])
                    break
                except UNREACHABLE as error:
                    assert life != self.site.lives or not self.site.is_up.is_set(), f"request {index}: {error!r}"
                    self.counts["again"] += 1
            assert (status, without_names(text)) == (200, without_names(self.alone[index])), f"request {index}: {text}"
            self.counts["good"] += 1

    async def bad_client(self, number):
        """From an address of its own. What it is answered is of no matter."""
        kinds = [self.stall, self.idle, self.rubbish, self.many_messages, self.many_stops, self.leave, self.read_slowly, self.leave_an_upload]
        while self.share() < 1:
            await self.site.is_up.wait()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                await self.chance.choice(kinds)(f"127.0.1.{number}")
                self.counts["bad"] += 1

    async def connect(self, address):
        return await asyncio.open_connection("127.0.0.1", self.site.port, local_addr=(address, 0))

    async def send(self, address, text, length=None):
        reader, writer = await self.connect(address)
        head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length or len(text)}\r\n\r\n"
        writer.write(head.encode() + text)
        await writer.drain()
        return reader, writer

    async def stall(self, address):
        _, writer = await self.send(address, b" " * (1 << 20), 7 << 20)
        await asyncio.sleep(self.chance.uniform(0, 5))
        writer.close()

    async def idle(self, address):
        connections = [await self.connect(address) for _ in range(self.chance.randrange(60))]
        await asyncio.sleep(self.chance.uniform(0, 3))
        for _, writer in connections:
            writer.close()

    async def answered(self, address, text):
        reader, writer = await self.send(address, text)
        await asyncio.wait_for(reader.read(1 << 16), 60)
        writer.close()

    async def rubbish(self, address):
        await self.answered(address, self.chance.randbytes(self.chance.randrange(1, 5000)))

    async def many_messages(self, address):
        await self.answered(address, json.dumps({"messages": [{"role": "user", "content": "a"}] * 60_000}).encode())

    async def many_stops(self, address):
        await self.answered(address, json.dumps({"prompt": "a", "stop": ["b" * 100] * 50_000}).encode())

    async def stream(self, address):
        request = {"prompt": self.chance.choice(PROMPTS), "max_tokens": 300, "ignore_eos": True, "stream": True, "n": 2}
        return await self.send(address, json.dumps(request).encode())

    async def leave(self, address):
        reader, writer = await self.stream(address)
        await reader.read(self.chance.randrange(1, 4000))
        writer.transport.abort()

    async def read_slowly(self, address):
        reader, writer = await self.stream(address)
        for _ in range(200):
            await asyncio.wait_for(reader.read(64), 60)
            await asyncio.sleep(0.01)
        writer.transport.abort()

    async def leave_an_upload(self, address):
        reader, writer = await self.connect(address)
        part = b'--a\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        head = "POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary=a\r\ncontent-length: 8000000\r\n\r\n"
        writer.write(head.encode() + part + b"a" * self.chance.randrange(1 << 20))
        await writer.drain()
        await asyncio.sleep(self.chance.uniform(0, 1))
        writer.transport.abort()

    async def submit(self, session):
        """A batch, if the server takes it: then it must be there to the end."""
        chosen = [self.chance.randrange(1, len(REQUESTS), 2) for _ in range(BATCH_LINES)]
        line = {"method": "POST", "url": "/v1/completions"}
        lines = [json.dumps({**line, "custom_id": f"{i}", "body": REQUESTS[index]}) for i, index in enumerate(chosen)]
        form = aiohttp.FormData({"purpose": "batch"})
        text = "\n".join(lines)
        form.add_field("file", text.encode(), filename="batch.jsonl")
        async with session.post(f"{self.site.url}/v1/files", data=form) as response:
            if response.status != 200:
                return False
            file = (await response.json())["id"]
            self.files.append((file, text))
        request = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
        async with session.post(f"{self.site.url}/v1/batches", json=request) as response:
            if response.status != 200:
                return False
            self.batches.append(((await response.json())["id"], chosen))
        return True

    async def submitter(self, session):
        while self.share() < 0.95:
            await self.site.is_up.wait()
            was_well, life = self.disk_is_well, self.site.lives
            try:
                is_taken = await self.submit(session)
            except UNREACHABLE:
                is_taken = life == self.site.lives and self.site.is_up.is_set()
                assert not is_taken, "a batch's connection was lost, but the server lives"
            well = was_well and self.disk_is_well and life == self.site.lives
            assert is_taken or not well, f"a batch was refused: {self.site.said()}"
            self.counts["batches" if is_taken else "refused batches"] += 1
            await asyncio.sleep(self.chance.uniform(0.5, 4))

    async def watch(self):
        """Memory through the first half, then kills and disks that fail."""
        while self.share() < 0.5:
            self.resident.append(self.site.resident_mib())
            await asyncio.sleep(0.25)
        while self.share() < 0.95:
            await asyncio.sleep(self.chance.uniform(2, 12))
            await self.chance.choice([self.kill, self.fill_disk, self.make_read_only])()

    async def kill(self):
        self.counts["kills"] += 1
        await self.site.kill()

    async def fill_disk(self):
        if not self.site_is_mounted():
            return
        self.disk_is_well = False
        ballast = os.path.join(self.site.data, "ballast")
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 65536):
                pass
        await asyncio.sleep(self.chance.uniform(1, 6))
        os.remove(ballast)
        self.disk_is_well = True
        self.counts["full"] += 1

    async def make_read_only(self):
        self.disk_is_well = False
        open(self.site.switch, "w").close()
        with contextlib.suppress(*UNREACHABLE):
            assert not await self.submit(self.session), "a batch was taken by a read-only disk"
        await asyncio.sleep(self.chance.uniform(1, 6))
        os.remove(self.site.switch)
        self.disk_is_well = True
        self.counts["read-only"] += 1

    def site_is_mounted(self):
        return os.path.ismount(self.site.data)

    async def check_batches(self, session):
        """Every acknowledged batch ends, with every line as alone."""
        for name, chosen in self.batches:
            while True:
                async with session.get(f"{self.site.url}/v1/batches/{name}") as response:
                    assert response.status == 200, f"batch {name} is lost: {await response.text()}"
                    batch = await response.json()
                if batch["status"] in ("completed", "failed", "expired", "cancelled"):
                    break
                await asyncio.sleep(0.5)
            assert batch["status"] == "completed", batch
            async with session.get(f"{self.site.url}/v1/files/{batch['output_file_id']}/content") as response:
                results = [json.loads(line) for line in (await response.text()).splitlines()]
            texts = {int(line["custom_id"]): line["response"]["body"]["choices"][0]["text"] for line in results}
            want = {i: json.loads(self.alone[index])["choices"][0]["text"] for i, index in enumerate(chosen)}
            assert texts == want, f"batch {name}"

    async def check_files(self, session):
        """Every acknowledged file is as it was sent."""
        for name, want in self.files:
            async with session.get(f"{self.site.url}/v1/files/{name}/content") as response:
                assert (response.status, await response.text()) == (200, want), f"file {name}"

    def check_memory(self):
        third = len(self.resident) // 3
        early, late = (statistics.median(part) for part in (self.resident[third : 2 * third], self.resident[2 * third :]))
        print(f"resident, medians of the second and the last third of the first half: {early:.1f} and {late:.1f} MiB")
        assert late - early < FLAT_MIB, "memory grows"

    async def run(self):
        await self.site.start()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
            for request in REQUESTS:
                status, text = await self.ask(session, request)
                assert status == 200, text
                self.alone.append(text)
            self.begun, self.session = time.monotonic(), session
            async with asyncio.TaskGroup() as tasks:
                for _ in range(12):
                    tasks.create_task(self.good_client(session))
                for number in range(1, 9):
                    tasks.create_task(self.bad_client(number))
                tasks.create_task(self.submitter(session))
                tasks.create_task(self.watch())
            self.check_memory()
            await self.check_batches(session)
            await self.check_files(session)
        self.site.process.terminate()
        assert self.site.process.wait() == 0, self.site.said()
        print(", ".join(f"{count} {name}" for name, count in self.counts.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1g", "soak", folder]
        is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        if not is_mounted:
            print("no file system of our own: the disk will not be full")
        data = os.path.join(folder, "") if is_mounted else folder
        try:
            asyncio.run(Soak(Site(data.rstrip("/"), beside), arguments.seconds, arguments.seed).run())
        finally:
            if is_mounted:
                subprocess.run(["umount", "--lazy", folder], check=False)


if __name__ == "__main__":
    sys.exit(main())
