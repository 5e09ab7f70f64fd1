"""Serve an EdgeKD bundle over HTTP: POST /predict, GET /healthz, GET /metrics.

python serve.py --bundle BUNDLE [--host 0.0.0.0] [--port 8000]

As many requests run at once as the CPUs that this container may use divide by the threads that the bundle was measured
with; some more wait, the rest is told to come back (503). Everything is refused that a client could break it with.
"""

import argparse
import asyncio
import hashlib
import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.registry import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from edgekd.errors import EdgekdError, UsageError
from edgekd.latency.machine import usable_cpus
from edgekd.runtime.model import load, read_config

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5)
# A body that is too large is read to this many times the limit and thrown away: a client that is cut off while it
# still sends would not see the answer.
DRAIN = 32
SCHEMA = {
    "type": "object",
    "required": ["texts"],
    "properties": {
        "texts": {"type": "array", "items": {"type": "string"}, "description": "Pair tasks: [first, second] each."},
        "all_scores": {"type": "boolean", "default": False},
    },
}

log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may wait."""

    texts: int = 64
    characters: int = 20_000
    body_bytes: int = 1_048_576
    # A third of a second's requests at a millisecond or so each: what a pause of the machine leaves behind is answered
    # late, not refused.
    waiting: int = 256
    body_seconds: float = 20.0


class RefusedError(Exception):
    """A request that is not answered: an HTTP status and one line that says why."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


class Metrics:
    """What Prometheus reads: one registry an application, the process's memory and CPU time with it."""

    def __init__(self, model, checksum):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("edgekd_requests", "Answered requests", ["status"], registry=self.registry)
        self.texts = Counter("edgekd_texts", "Texts answered", registry=self.registry)
        self.seconds = Histogram(
            "edgekd_request_seconds", "From the whole body to the answer", buckets=SECONDS, registry=self.registry
        )
        self.model_seconds = Histogram(
            "edgekd_model_seconds", "Tokeniser, model and labels", buckets=SECONDS, registry=self.registry
        )
        self.open = Gauge("edgekd_requests_open", "Requests running or waiting", registry=self.registry)
        cut = Gauge("edgekd_texts_truncated", "Texts longer than the model's maximum", registry=self.registry)
        cut.set_function(lambda: model.truncated)
        info = {"task": model.config.task, "provider": model.provider, "model_sha256": checksum}
        Info("edgekd_bundle", "What is served", registry=self.registry).info(info)


class Server:
    """The model, its workers and its limits."""

    def __init__(self, bundle, limits):
        self.limits = limits
        cpus = usable_cpus()
        # More threads than the container's quota allows would be stopped in mid-call.
        self.threads = min(read_config(Path(bundle) / "config.json").threads, cpus)
        self.workers = cpus // self.threads
        self.model = load(bundle, threads=self.threads)
        with (Path(bundle) / "model.onnx").open("rb") as file:
            self.metrics = Metrics(self.model, hashlib.file_digest(file, "sha256").hexdigest())
        self.pool = ThreadPoolExecutor(self.workers, "model")
        self.open = 0

    def warm_up(self):
        """The first call allocates; no client shall wait for it."""
        self.model.predict([("warm", "up")] if self.model.config.pair else ["warm up"])
        self.model.truncated = 0

    async def respond(self, request):
        """Answer or refuse, and count it. Whatever happens, there is a response."""
        try:
            body = await self.body_of(request)
            with self.metrics.seconds.time():
                status, content = 200, {"answers": await self.answers(*self.read(body))}
        except RefusedError as refusal:
            status, content = refusal.status, {"error": str(refusal)}
        except ClientDisconnect:
            status, content = 400, {"error": "the client went away"}
        except Exception:
            log.exception("a request failed")
            status, content = 500, {"error": "internal error"}
        self.metrics.requests.labels(str(status)).inc()
        return JSONResponse(content, status, headers={"Retry-After": "1"} if status == 503 else None)

    async def body_of(self, request):
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, f"content type {kind or 'missing'!r}: send application/json")
        limit, size, chunks = self.limits.body_bytes, 0, []
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

    def read(self, body):
        """Texts and options of a body, or the refusal that it earns."""
        try:
            content = json.loads(body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RefusedError(400, f"the body is not UTF-8: byte {error.start} is wrong") from None
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, f"the body is not JSON: {error}") from None
        if not isinstance(content, dict) or not isinstance(content.get("texts"), list):
            raise RefusedError(422, 'send {"texts": ["...", ...]}')
        unknown, all_scores = sorted(set(content) - set(SCHEMA["properties"])), content.get("all_scores", False)
        if unknown:
            raise RefusedError(422, f"unknown field {unknown[0][:40]!r}: known are {', '.join(SCHEMA['properties'])}")
        if not isinstance(all_scores, bool):
            raise RefusedError(422, "all_scores is true or false")
        texts = content["texts"]
        if len(texts) > self.limits.texts:
            raise RefusedError(413, f"{len(texts)} texts: at most {self.limits.texts} a request")
        for i, text in enumerate(texts):
            for part in text if isinstance(text, list) else [text]:
                if isinstance(part, str) and len(part) > self.limits.characters:
                    raise RefusedError(413, f"text {i}: {len(part)} characters, at most {self.limits.characters}")
        return texts, all_scores

    async def answers(self, texts, all_scores):
        if self.open >= self.workers + self.limits.waiting:
            raise RefusedError(503, "too many requests are waiting: try again")
        self.open += 1
        self.metrics.open.inc()
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, self.predict, texts, all_scores)
        except UsageError as error:
            raise RefusedError(422, str(error)) from None
        finally:
            self.open -= 1
            self.metrics.open.dec()

    def predict(self, texts, all_scores):
        with self.metrics.model_seconds.time():
            answers = self.model.predict(texts, all_scores=all_scores)
        self.metrics.texts.inc(len(texts))
        return answers


def create_app(bundle, limits=None):
    """The application that serves a bundle; it loads it before the first request."""
    server = Server(bundle, limits or Limits())

    @asynccontextmanager
    async def lifespan(_):
        server.warm_up()
        yield
        # uvicorn has let the open requests finish by now.
        server.pool.shutdown()

    # The schema stays at /openapi.json; the pages that show it would fetch scripts from elsewhere.
    app = FastAPI(title="EdgeKD bundle", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.server = server

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, refusal: HTTPException) -> Response:
        server.metrics.requests.labels(str(refusal.status_code)).inc()
        what = f"{request.method} {request.url.path[:80]}: {refusal.detail.lower()}"
        content = {"error": f"{what}; there are POST /predict, GET /healthz and GET /metrics"}
        return JSONResponse(content, refusal.status_code, headers=refusal.headers)

    @app.post("/predict", openapi_extra={"requestBody": {"content": {"application/json": {"schema": SCHEMA}}}})
    async def predict(request: Request) -> Response:
        return await server.respond(request)

    @app.get("/healthz")
    async def healthz() -> dict:
        config = server.model.config
        return {
            "status": "ok",
            "task": config.task,
            "labels": len(config.labels),
            "max_length": config.max_length,
            "provider": server.model.provider,
            "threads": server.threads,
            "workers": server.workers,
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Serve an EdgeKD bundle over HTTP.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-texts", type=int, default=Limits.texts, help="texts a request")
    parser.add_argument("--max-characters", type=int, default=Limits.characters, help="characters a text")
    parser.add_argument("--max-body-bytes", type=int, default=Limits.body_bytes)
    parser.add_argument("--max-waiting", type=int, default=Limits.waiting, help="requests that may wait for a CPU")
    parser.add_argument("--grace-seconds", type=int, default=25, help="for open requests, after SIGTERM")
    options = parser.parse_args(arguments)
    for name in ("max_texts", "max_characters", "max_body_bytes", "max_waiting", "grace_seconds"):
        if getattr(options, name) < (name != "max_waiting"):
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: too small")
    if not 0 <= options.port < 2**16:
        parser.error(f"--port {options.port}: a port is below 65536")
    limits = Limits(options.max_texts, options.max_characters, options.max_body_bytes, options.max_waiting)
    started = time.perf_counter()
    try:
        app = create_app(options.bundle, limits)
    except EdgekdError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    server = app.state.server
    print(
        f"{options.bundle}: loaded in {time.perf_counter() - started:.2f} s, {server.workers} at once with "
        f"{server.threads} thread(s) each",
        file=sys.stderr,
    )
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        access_log=False,
        # Longer than a load balancer's 60 s: who closes first must not be the one that still gets requests.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=options.grace_seconds,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
