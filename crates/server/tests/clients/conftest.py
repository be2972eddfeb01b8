"""Starts the binary that RUSTORCH names, on a free port, with the demo model."""

import os
import re
import signal
import subprocess
import threading
import urllib.request
from dataclasses import dataclass

import openai
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

BINARY = os.environ["RUSTORCH"]


@dataclass
class Server:
    process: subprocess.Popen
    url: str
    key: str | None

    def client(self, **options) -> openai.OpenAI:
        """The official client, which must not hide a failure by trying again."""
        options = {"api_key": self.key or "none", "max_retries": 0, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def metrics(self) -> dict[str, float]:
        """Every figure of /metrics by name and labels, read by Prometheus's own parser."""
        request = urllib.request.Request(f"{self.url}/metrics")
        if self.key:
            request.add_header("authorization", f"Bearer {self.key}")
        with urllib.request.urlopen(request) as response:
            assert response.headers["content-type"].startswith("application/openmetrics-text")
            families = list(text_string_to_metric_families(response.read().decode()))
        samples = (sample for family in families for sample in family.samples)
        return {sample.name + "".join(f",{v}" for v in sample.labels.values()): sample.value for sample in samples}

    def resident_mib(self) -> float:
        """Memory that the process has resident."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) / 1024

    def stop(self) -> int:
        """Takes the server down as systemd would; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


def start(*args: str, key: str | None = None) -> Server:
    environment = {**os.environ, **({"RUSTORCH_API_KEY": key} if key else {})}
    process = subprocess.Popen(
        [BINARY, "serve", "--port", "0", *args], stderr=subprocess.PIPE, text=True, env=environment
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"http://\S+", line):
            # It logs a line for each request, and would wait for whoever does not read them.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return Server(process, found[0], key)
    raise AssertionError("the server did not start:\n" + "".join(said))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that a module's tests share."""
    server = start("--data-dir", str(tmp_path_factory.mktemp("data")), key="sk-test")
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server):
    return server.client()
