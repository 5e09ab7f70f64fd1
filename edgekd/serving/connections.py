"""Connections that cannot starve the others, and an end that loses no request: what uvicorn leaves to a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
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
        most: Connections of the process that ask nothing, of those that were answered before and of those that were
            not; of more, the one that has been silent longest is closed, if that is for a second.
    """

    header_seconds: ClassVar[float]
    most: ClassVar[int]
    # Since when each has been silent, the most silent first. New ones keep no answered ones out.
    _new: ClassVar[dict[Connection, float]] = {}
    _kept: ClassVar[dict[Connection, float]] = {}

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._received = 0
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.header_seconds, self._late)
        self._keep(quiet=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._in_time()
        self._keep(quiet=False)
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
        self._new.pop(self, None)
        self._kept.pop(self, None)
        if not quiet:
            return
        now, silent = self.loop.time(), self._new if self.cycle is None else self._kept
        silent[self] = now
        oldest, since = next(iter(silent.items()))
        if len(silent) > self.most and now - since >= 1:
            del silent[oldest]
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
        taken = [connection for listening in sockets or [] for connection in _connected(listening)]
        loop = asyncio.get_running_loop()
        answers = asyncio.gather(*(loop.connect_accepted_socket(self._protocol, one) for one in taken))
        await super().shutdown(sockets)
        await answers

    def _protocol(self) -> asyncio.Protocol:
        # As uvicorn makes it of each connection that it accepts.
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return made


def _connected(listening: socket.socket) -> list[socket.socket]:
    """Who has connected and is not yet accepted: closing the socket that listens would reset them."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(listening.accept()[0])
    return taken
