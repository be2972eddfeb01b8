"""`AsyncLLM`: requests that come and go, for asyncio."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Optional

from ._model import Model
from ._requests import Collector, Job, Prompt, completion, embedding
from ._rustorch import Engine, Part, Requests, Submitted
from .outputs import EmbeddingRequestOutput, RequestOutput
from .sampling_params import RequestOutputKind, SamplingParams


class _Stream:
    """The parts of one request, on their way from the thread that waits for them to the loop that wants them."""

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.loop = asyncio.get_running_loop()
        # None ends it.
        self.parts: asyncio.Queue[Optional[Part]] = asyncio.Queue()

    def put(self, part: Optional[Part]) -> None:
        """From any thread."""
        try:
            self.loop.call_soon_threadsafe(self.parts.put_nowait, part)
        except RuntimeError:
            # The loop is closed, and with it whoever waited.
            pass


class _Pump:
    """A thread that waits for parts of all requests."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests
        self.streams: dict[int, _Stream] = {}
        self._tags = itertools.count()
        self._thread = threading.Thread(target=self._run, name="rustorch-llama", daemon=True)
        self._thread.start()

    def open(self) -> _Stream:
        """A stream for a new request."""
        stream = _Stream(next(self._tags))
        self.streams[stream.tag] = stream
        return stream

    def _run(self) -> None:
        while parts := self.requests.wait():
            for part in parts:
                stream = self.streams.get(part.tag)
                if stream is not None:
                    stream.put(part)

    def close(self, engine: Engine) -> None:
        """Ends every request, then the thread."""
        engine.shutdown()
        self.requests.close()
        if self._thread is not threading.current_thread():
            self._thread.join()


class AsyncLLM(Model):
    """A model that answers requests as they come. They share its batches."""

    def __init__(self, model: Any, **arguments: Any) -> None:
        """As `LLM`."""
        super().__init__(model, **arguments)
        self._pump = _Pump(self._engine.streams())
        self._running: dict[str, _Stream] = {}
        self._ids = itertools.count()
        # Before the interpreter ends too: a thread must not wait in native code then.
        self._close = weakref.finalize(self, self._pump.close, self._engine)

    async def generate(
        self, prompt: Prompt, sampling_params: Optional[SamplingParams] = None, request_id: Optional[str] = None
    ) -> AsyncIterator[RequestOutput]:
        """Continues a prompt, and yields what is there so far whenever there is more.

        Cancelling the task, or closing the iterator, ends the request. `output_kind` of the parameters says what each
        output has; without it, everything so far.
        """
        params = SamplingParams() if sampling_params is None else sampling_params
        async with self._request(completion(prompt, params), request_id) as (stream, collector):
            while not collector.finished:
                await _receive(stream, collector)
                if params.output_kind is RequestOutputKind.DELTA:
                    yield collector.take_new()
                elif collector.finished or params.output_kind is RequestOutputKind.CUMULATIVE:
                    yield collector.whole()

    async def embed(
        self, prompt: Prompt, request_id: Optional[str] = None, *, pooling: Optional[str] = None
    ) -> EmbeddingRequestOutput:
        """Embeds a prompt, as `LLM.embed`."""
        async with self._request(embedding(prompt, pooling), request_id) as (stream, collector):
            await _receive(stream, collector)
            return collector.embedding()

    async def abort(self, request_id: str) -> None:
        """Ends a request: its last output has the `finish_reason` "abort". Nothing happens if it does not run."""
        stream = self._running.get(request_id)
        if stream is not None:
            stream.put(None)

    def shutdown(self) -> None:
        """Ends the engine, and every request with an `EngineError`."""
        self._close()

    @asynccontextmanager
    async def _request(self, job: Job, request_id: Optional[str]) -> AsyncIterator[tuple[_Stream, Collector]]:
        """Submits a request, which ends with the context."""
        request_id = str(next(self._ids)) if request_id is None else request_id
        if request_id in self._running:
            raise ValueError(f"request_id: expected one that is not running, found {request_id!r}")
        stream = self._running[request_id] = self._pump.open()
        try:
            # Tokenising a prompt or compiling a grammar may take long. If nobody waits any more, what is submitted is
            # dropped, which ends it.
            submit = self._engine, self._pump.requests, stream.tag
            submitted: Submitted = await stream.loop.run_in_executor(None, job.submit, *submit)
            try:
                yield stream, Collector(self._engine, job, request_id, submitted)
            finally:
                submitted.cancel()
        finally:
            del self._running[request_id]
            del self._pump.streams[stream.tag]


async def _receive(stream: _Stream, collector: Collector) -> None:
    """Waits for a part, and takes those that have come with it."""
    part = await stream.parts.get()
    while True:
        if part is None:
            collector.abort()
        else:
            collector.add(part)
        if collector.finished or stream.parts.empty():
            return
        part = stream.parts.get_nowait()
