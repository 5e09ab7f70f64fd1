"""Connections that cannot starve the others, and an end that loses no request: what uvicorn leaves to a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Bytes of a request's headers; a browser sends two thousand.
HEADER_BYTES = 32_768
# After the last answer of a server that ends: what a client has sent by then is answered too, if with a refusal.
_LAST_SECONDS = 0.3


class Connection(HttpToolsProtocol):
    """A connection whose headers must arrive in time and in bounds.

    Attributes:
        header_seconds: For the headers of a request to arrive, and for the first byte of a connection.
        most: Connections without a request that runs; of more, the one that has been silent longest is closed.
        quiet: These, the most silent first, of the whole process.
    """

    header_seconds: ClassVar[float]
    most: ClassVar[int]
    quiet: ClassVar[dict[Connection, None]] = {}

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._received = 0
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.header_seconds, self._late)
        self._keep(quiet=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._in_time()
        self.quiet.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._waits():
            self._received += len(data)
            if self._timer is None:
                self._timer = self.loop.call_later(self.header_seconds, self._late)
            self._keep(quiet=True)
        super().data_received(data)
        if self._received > HEADER_BYTES and self._waits() and not self.transport.is_closing():
            self.send_400_response("The headers are too large.")

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._in_time()
        self._received = 0
        self._keep(quiet=False)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        if not self.transport.is_closing() and self._waits():
            self._keep(quiet=True)

    def _waits(self) -> bool:
        """Whether no request of this connection is being read or answered."""
        return self.cycle is None or (self.cycle.response_complete and not self.pipeline)

    def _in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.abort()

    def _keep(self, quiet: bool) -> None:
        self.quiet.pop(self, None)
        if quiet:
            self.quiet[self] = None
            if len(self.quiet) > self.most:
                oldest = next(iter(self.quiet))
                self.quiet.pop(oldest)
                oldest.transport.abort()


class GracefulServer(uvicorn.Server):
    """Ends in three steps: new requests are refused while the open ones are answered, then connections are closed.

    A signal is obeyed here and not raised again: whoever started the server learns from exit code 0 that it ended well.
    """

    def __init__(self, config: uvicorn.Config, refuse: Callable[[float], None], is_busy: Callable[[], bool]) -> None:
        """`refuse(seconds)` is told how long open requests have; `is_busy()` says whether any is open."""
        super().__init__(config)
        self._refuse, self._is_busy = refuse, is_busy
        # As many connections as the system grants; Windows has no such limit.
        with contextlib.suppress(ImportError, ValueError, OSError):
            import resource

            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def shutdown(self, sockets: Any = None) -> None:
        """See uvicorn."""
        grace = float(self.config.timeout_graceful_shutdown or 0)
        end = time.monotonic() + grace
        self._refuse(grace)
        while self._is_busy() and not self.force_exit and time.monotonic() < end:
            await asyncio.sleep(0.02)
        if not self.force_exit:
            await asyncio.sleep(_LAST_SECONDS)
        self._captured_signals.clear()
        await super().shutdown(sockets)
