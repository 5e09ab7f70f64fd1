"""The application that serves a bundle: POST /predict, GET /healthz, GET /metrics, GET /openapi.json.

As many parts of requests run at once as the CPUs that this process may use divide by the threads that the bundle was
measured with; requests take turns. Everything is refused that a client could break it with.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.registry import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgekd.errors import UsageError
from edgekd.latency.machine import usable_cpus
from edgekd.reading import sha256_of
from edgekd.runtime.config import read_config
from edgekd.runtime.model import Model, Text, load
from edgekd.serving.connections import Connection, GracefulServer
from edgekd.serving.limits import Limits
from edgekd.serving.schema import ERROR, answers_schema, request_schema
from edgekd.serving.turns import Answers, Turns

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5)
# A body that is too large is read to this many times the limit and thrown away: a client that is cut off while it
# still sends would not see the answer.
DRAIN = 32
# Characters of a text, for each token that is kept, beyond which it costs next to nothing.
_CHARACTERS = 8
# Longer than a load balancer's 60 s: who closes first must not be the one that still gets requests.
_KEEP_ALIVE = 75

# Seconds before the end of its grace in which the server says to whom still waits that it ends.
_LAST_ANSWERS = 1.0
_ENDING = "the server is ending: ask another one"

_REFUSALS = {
    400: "not UTF-8, or not JSON", 408: "the body took too long", 413: "more than one request may ask for",
    415: "no JSON", 422: "other JSON", 429: "too many wait: come back", 500: "a fault of the server",
    503: "not answered in time",
}  # fmt: skip

log = logging.getLogger("uvicorn.error")


class RefusedError(Exception):
    """A request that is not answered: an HTTP status and one line that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Metrics:
    """What Prometheus reads: one registry an application, the process's memory and CPU time with it."""

    def __init__(self, model: Model, checksum: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("edgekd_requests", "Answered requests", ["status"], registry=self.registry)
        self.texts = Counter("edgekd_texts", "Texts answered", registry=self.registry)
        self.seconds = Histogram(
            "edgekd_request_seconds", "From the whole body to the answer; refusals are left out", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.model_seconds = Histogram(
            "edgekd_model_seconds", "Tokeniser, model and labels of a part of a request", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.open = Gauge("edgekd_requests_open", "Requests running or waiting", registry=self.registry)
        cut = Gauge("edgekd_texts_truncated", "Texts longer than the model's maximum", registry=self.registry)
        cut.set_function(lambda: model.truncated)
        info = {"task": model.config.task, "provider": model.provider, "model_sha256": checksum}
        Info("edgekd_bundle", "What is served", registry=self.registry).info(info)


class Server:
    """The model, its workers and its limits."""

    def __init__(self, bundle: Path, limits: Limits) -> None:
        self.limits = limits
        cpus = usable_cpus()
        # More threads than the container's quota allows would be stopped in mid-call.
        self.threads = min(read_config(bundle / "config.json").threads, cpus)
        self.model = load(bundle, threads=self.threads)
        self.metrics = Metrics(self.model, sha256_of(bundle / "model.onnx"))
        self.turns = Turns(self._predict, cpus // self.threads, _CHARACTERS * self.model.config.max_length)
        self.metrics.open.set_function(lambda: self.turns.open)
        # Set when the server ends: nothing new is taken; and when it ends at once: nobody waits on.
        self.ending, self.over = False, asyncio.Event()
        self.fields = request_schema(self.model.config, limits.texts)["properties"]

    def example(self) -> dict[str, Any]:
        """A request and its answer; the first call allocates too, and no client shall wait for that."""
        texts: list[Text] = [("wake me up at six", "set an alarm")] if self.model.config.pair else ["wake me up at six"]
        answers = self.model.predict(texts)
        self.model.truncated = 0
        return {"request": {"texts": texts}, "answer": {"answers": answers}}

    def about(self) -> dict[str, str | int]:
        """What is served, and with what."""
        config = self.model.config
        return {
            "task": config.task,
            "labels": len(config.labels),
            "max_length": config.max_length,
            "provider": self.model.provider,
            "threads": self.threads,
            "workers": self.turns.workers,
        }

    async def respond(self, request: Request) -> Response:
        """Answer or refuse, and count it. Whatever happens, there is a response."""
        try:
            body = await self._body_of(request)
            if self.ending:
                raise RefusedError(503, _ENDING)
            start = time.perf_counter()
            content: dict[str, Any] = {"answers": await self._answers(request, *self._read(body))}
            self.metrics.seconds.observe(time.perf_counter() - start)
            status = 200
        except RefusedError as refusal:
            status, content = refusal.status, {"error": str(refusal)}
        except ClientDisconnect:
            status, content = 499, {"error": "the client went away"}
        except Exception:
            log.exception("a request failed")
            status, content = 500, {"error": "internal error"}
        self.metrics.requests.labels(str(status)).inc()
        headers = {"Retry-After": "1"} if status in (429, 503) else {}
        # The client's next request must find another server.
        return JSONResponse(content, status, headers | ({"Connection": "close"} if self.ending else {}))

    def end(self, seconds: float) -> None:
        """Refuse what is new from now on, and in so many seconds what still waits."""
        self.ending = True
        asyncio.get_running_loop().call_later(max(seconds - _LAST_ANSWERS, 0), self.over.set)

    async def _body_of(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, f"content type {kind or 'missing'!r}: send application/json")
        limit, size = self.limits.body_bytes, 0
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= limit:
                        chunks.append(chunk)
                    elif size > DRAIN * limit:
                        break
        except TimeoutError:
            raise RefusedError(408, f"the body took more than {self.limits.body_seconds:g} s") from None
        if size > limit:
            raise RefusedError(413, f"the body has more than {limit} bytes: send fewer or shorter texts")
        return b"".join(chunks)

    def _read(self, body: bytes) -> tuple[Sequence[Text], bool]:
        """Texts and options of a body, or the refusal that it earns."""
        try:
            content = json.loads(body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RefusedError(400, f"the body is not UTF-8: byte {error.start} is wrong") from None
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, f"the body is not JSON: {error}") from None
        if not isinstance(content, dict) or not isinstance(content.get("texts"), list):
            raise RefusedError(422, 'send {"texts": ["...", ...]}')
        unknown, all_scores = sorted(set(content) - set(self.fields)), content.get("all_scores", False)
        if unknown:
            raise RefusedError(422, f"unknown field {unknown[0][:40]!r}: known are {', '.join(self.fields)}")
        if not isinstance(all_scores, bool):
            raise RefusedError(422, "all_scores is true or false")
        texts = content["texts"]
        if len(texts) > self.limits.texts:
            raise RefusedError(413, f"{len(texts)} texts: at most {self.limits.texts} a request")
        for i, text in enumerate(texts):
            size = sum(len(part) for part in (text if isinstance(text, list) else [text]) if isinstance(part, str))
            if size > self.limits.characters:
                raise RefusedError(413, f"text {i}: {size} characters, at most {self.limits.characters}")
        try:
            return self.model.check(texts), all_scores
        except UsageError as error:
            raise RefusedError(422, str(error)) from None

    async def _answers(self, request: Request, texts: Sequence[Text], all_scores: bool) -> Answers:
        if self.turns.open >= self.turns.workers + self.limits.waiting:
            raise RefusedError(429, "too many requests are waiting: try again")
        job = self.turns.submit(texts, all_scores)
        gone, over = asyncio.ensure_future(_gone(request)), asyncio.ensure_future(self.over.wait())
        waited: set[asyncio.Future[Any]] = {job.done, gone, over}
        try:
            await asyncio.wait(waited, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if job.done.done():
                return job.done.result()
            if gone.done():
                raise ClientDisconnect
            if over.done():
                raise RefusedError(503, _ENDING)
            raise RefusedError(503, f"not answered within {self.limits.seconds:g} s: send fewer texts, or try again")
        finally:
            gone.cancel()
            over.cancel()
            job.done.cancel()

    def _predict(self, texts: Sequence[Text], all_scores: bool) -> Answers:
        with self.metrics.model_seconds.time():
            answers = self.model.predict(texts, all_scores=all_scores)
        self.metrics.texts.inc(len(texts))
        return answers


async def _gone(request: Request) -> None:
    """Wait until the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class AccessLog:
    """Writes a JSON object a request to stderr, without its texts."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "client": (scope.get("client") or ("",))[0],
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "ms": round(1000 * (time.perf_counter() - start), 3),
            }
            _say(json.dumps(line))


def create_app(bundle: str | Path, limits: Limits | None = None, *, access_log: bool = False) -> FastAPI:
    """The application that serves a bundle, which it loads at once.

    Args:
        bundle: The folder.
        limits: What a request may ask for.
        access_log: Write a JSON object a request to stderr.

    Raises:
        UsageError: The bundle is missing or broken.
    """
    server = Server(Path(bundle), limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        # uvicorn has let the open requests finish by now.
        server.turns.shut_down()

    # The schema stays at /openapi.json; the pages that show it would fetch scripts from elsewhere.
    app = FastAPI(title="EdgeKD bundle", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.server = server
    if access_log:
        app.add_middleware(AccessLog)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, refusal: HTTPException) -> Response:
        server.metrics.requests.labels(str(refusal.status_code)).inc()
        what = f"{request.method} {request.url.path[:80]}: {refusal.detail.lower()}"
        content = {"error": f"{what}; there are POST /predict, GET /healthz, /metrics and /openapi.json"}
        return JSONResponse(content, refusal.status_code, headers=refusal.headers)

    @app.post("/predict", **_described(server))
    async def predict(request: Request) -> Response:
        """Answer texts."""
        return await server.respond(request)

    @app.get("/healthz", responses=_health(server))
    @app.head("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        """Say that it is there, and what it serves; 503 once it ends."""
        if server.ending:
            return JSONResponse({"status": "ending"}, 503, {"Connection": "close"})
        return JSONResponse({"status": "ok"} | server.about())

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _health(server: Server) -> dict[int | str, dict[str, Any]]:
    """What /openapi.json says of GET /healthz."""
    there, ending = {"status": "ok"} | server.about(), {"status": "ending"}
    kinds = {str: "string", int: "integer"}
    found: dict[int | str, dict[str, Any]] = {}
    for status, what, content in ((200, "it serves", there), (503, "it ends: ask another", ending)):
        schema = {"type": "object", "properties": {name: {"type": kinds[type(v)]} for name, v in content.items()}}
        found[status] = {"description": what, "content": {"application/json": {"schema": schema, "example": content}}}
    return found


def _described(server: Server) -> dict[str, Any]:
    """What /openapi.json says of POST /predict: both sides with the bundle's own labels and a real answer."""
    config, example = server.model.config, server.example()
    body = {"schema": request_schema(config, server.limits.texts), "example": example["request"]}
    answered = {"schema": answers_schema(config), "example": example["answer"]}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": why, "content": {"application/json": {"schema": ERROR}}}
        for status, why in _REFUSALS.items()
    }
    responses[200] = {"description": "an answer a text, in order", "content": {"application/json": answered}}
    asked = {"requestBody": {"required": True, "content": {"application/json": body}}}
    return {"responses": responses, "openapi_extra": asked}


def serve(
    bundle: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: Limits | None = None,
    grace_seconds: int = 8,
    access_log: bool = False,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; open requests are finished.

    Args:
        bundle: The folder.
        host: Address to listen on.
        port: Port; 0 takes any that is free, and says which.
        limits: What a request may ask for.
        grace_seconds: For open requests, after the signal.
        access_log: Write a JSON object a request to stderr.

    Raises:
        UsageError: The bundle is missing or broken, or the address cannot be used.
    """
    if grace_seconds < 1:
        raise UsageError(f"--grace-seconds {grace_seconds}: too small")
    started = time.perf_counter()
    app = create_app(bundle, limits, access_log=access_log)
    listening = _listen(host, port)
    server: Server = app.state.server
    _say(
        f"{bundle}: loaded in {time.perf_counter() - started:.2f} s, {server.turns.workers} at once with"
        f" {server.threads} thread(s) each, on http://{host}:{listening.getsockname()[1]}"
    )
    Connection.header_seconds, Connection.most = server.limits.header_seconds, server.limits.connections
    config = uvicorn.Config(
        app, http=Connection, access_log=False, log_level="warning", timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=grace_seconds,
    )  # fmt: skip
    with listening:
        GracefulServer(config, server.end, lambda: server.turns.open > 0).run(sockets=[listening])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise UsageError(f"--port {port}: a port is below 65536")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror or error}") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        # Who reads the address may call at once, and waits.
        listening.listen(2048)
    except OSError as error:
        listening.close()
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"--host {host} --port {port}: {reason}: name another") from error
    return listening
