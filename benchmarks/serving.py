"""The serving process under an open-loop load: Poisson arrivals that wait for nobody.

    python benchmarks/serving.py --bundle ./bundle [--minutes 10] [--load 0.6] [--texts test.jsonl]

The server runs on all CPUs of this process but the last, the load generator on the last. What a request costs is the
server's own CPU time for it, seen by one client that asks again and again; the load is a share of cores / that time.
A latency counts from the moment when the request was due, so that a server that falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cold_start import parser_of, read_texts
from record import write_record

from edgekd.errors import UsageError

GOALS = {"p99_ms": 50.0, "load": 0.6, "errors": 0}
WARM_UP, CLOSED_LOOP = 200, 1000
MEMORY_EVERY_S = 5.0


@dataclass
class Outcome:
    """What the load met.

    Attributes:
        seconds: Latency of each answered request, from when it was due.
        due: When each of these was due, in seconds from the start.
        errors: Requests with another status than 200, or none.
        memory: (seconds from the start, resident bytes) of the server.
        stolen: (seconds from the start, seconds so far that the host gave the server's CPUs to others).
    """

    seconds: list[float] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    stolen: list[tuple[float, float]] = field(default_factory=list)


def post(body: bytes) -> bytes:
    """A request to /predict as it is sent."""
    return (
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> tuple[int, bool]:
    """Send a request and read its answer: the status, and whether the server closes the connection then."""
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if length is None:
        raise ConnectionError("a response without a length")
    await reader.readexactly(int(length[1]))
    return int(head.split(b" ", 2)[1]), b"connection: close" in head.lower()


class Client:
    """As many kept-alive connections as are needed at once, used in turns so that none idles until it is closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def ask(self, body: bytes) -> int:
        """The status of one request."""
        reader, writer = self.idle.popleft() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        status, _ = await exchange(reader, writer, post(body))
        self.idle.append((reader, writer))
        return status


@contextmanager
def server(bundle: Path, cpus: set[int]) -> Iterator[int]:
    """Start `edgekd.serving` on these CPUs; give its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.sched_setaffinity(0, cpus)  # which the child inherits
    running = subprocess.Popen([sys.executable, "-m", "edgekd.serving", str(bundle), "--port", str(port)])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        running.terminate()
        running.wait(60)


def metric(port: int, name: str) -> float:
    """A figure of the server's /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    if found is None:
        raise UsageError(f"/metrics has no {name}")
    return float(found[1])


def stolen_seconds(cpus: set[int]) -> float:
    """Seconds since boot in which these CPUs were ready to run and the host ran something else; 0 where none says."""
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()]
    except OSError:
        return 0.0
    ticks = sum(int(line[8]) for line in lines if line[0] in {f"cpu{i}" for i in cpus})
    return ticks / os.sysconf("SC_CLK_TCK")


async def closed_loop(port: int, bodies: list[bytes]) -> tuple[float, float]:
    """Seconds that a request takes one client, and the server's CPU seconds for it."""
    client = Client(port)
    for i in range(WARM_UP):
        await client.ask(bodies[i % len(bodies)])
    before, started = metric(port, "process_cpu_seconds_total"), time.perf_counter()
    for i in range(CLOSED_LOOP):
        await client.ask(bodies[i % len(bodies)])
    elapsed = time.perf_counter() - started
    return elapsed / CLOSED_LOOP, (metric(port, "process_cpu_seconds_total") - before) / CLOSED_LOOP


async def open_loop(port: int, bodies: list[bytes], rate: float, seconds: float, served: set[int]) -> Outcome:
    """Send `rate` requests a second to a server on the CPUs `served`, at random moments, whatever became of others."""
    client, outcome, rng, tasks = Client(port), Outcome(), random.Random(0), set()

    async def one(due: float, body: bytes) -> None:
        try:
            status = await client.ask(body)
        except (OSError, EOFError) as error:
            outcome.errors.append(type(error).__name__)
            return
        if status != 200:
            outcome.errors.append(str(status))
            return
        outcome.seconds.append(time.perf_counter() - started - due)
        outcome.due.append(due)

    async def watch_memory() -> None:
        while True:
            resident = await asyncio.to_thread(metric, port, "process_resident_memory_bytes")
            now = time.perf_counter() - started
            outcome.memory.append((now, resident))
            outcome.stolen.append((now, stolen_seconds(served)))
            await asyncio.sleep(MEMORY_EVERY_S)

    started, due = time.perf_counter(), 0.0
    watching = asyncio.create_task(watch_memory())
    while (due := due + rng.expovariate(rate)) < seconds:
        wait = due - (time.perf_counter() - started)
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(due, rng.choice(bodies)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    watching.cancel()
    return outcome


def growth_mb(memory: list[tuple[float, float]]) -> float | None:
    """Resident MB gained over the last two thirds of the run, by a straight line; None where it is too short."""
    late = [point for point in memory if point[0] >= memory[-1][0] / 3]
    if len(late) < 3:
        return None
    times, sizes = np.array(late).T
    return float(np.polyfit(times, sizes, 1)[0] * (times[-1] - times[0]) / 1e6)


def stolen_by_minute(stolen: list[tuple[float, float]]) -> list[float]:
    """Seconds that the host took in each whole minute."""
    times, seconds = np.array(stolen).T
    ends = np.interp(60.0 * np.arange(int(times[-1] / 60) + 1), times, seconds)
    return [round(float(taken), 3) for taken in np.diff(ends)]


def summary(outcome: Outcome, minutes: float) -> dict[str, Any]:
    """Percentiles in ms, overall and by minute, errors and memory."""
    found, due = np.array(outcome.seconds) * 1e3, np.array(outcome.due)
    by_minute = [found[(due >= 60 * i) & (due < 60 * (i + 1))] for i in range(int(np.ceil(minutes)))]
    return {
        "requests": len(found) + len(outcome.errors),
        "errors": len(outcome.errors),
        "error_kinds": sorted(set(outcome.errors)),
        "ms": {f"p{q:g}": float(np.percentile(found, q)) for q in (50, 90, 95, 99, 99.9)} | {"max": float(found.max())},
        "p99_by_minute_ms": [float(np.percentile(part, 99)) for part in by_minute if len(part)],
        "stolen_by_minute_s": stolen_by_minute(outcome.stolen),
        "memory_mb": [[round(at, 1), round(size / 1e6, 1)] for at, size in outcome.memory],
        "memory_growth_mb": growth_mb(outcome.memory),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--load", type=float, default=GOALS["load"], help="share of cores / service time")
    options = parser.parse_args()
    bodies = [json.dumps({"texts": [text]}).encode() for text in read_texts(options.texts, 1000)]
    mine = sorted(os.sched_getaffinity(0))
    served, asking = set(mine[:-1]) or set(mine), {mine[-1]}
    with server(options.bundle, served) as port:
        os.sched_setaffinity(0, asking)
        wall, cpu = asyncio.run(closed_loop(port, bodies))
        rate = options.load * len(served) / cpu
        print(f"one client: {wall * 1e3:.2f} ms a request, {cpu * 1e3:.2f} ms of it the server's CPU time")
        print(f"{rate:.0f} requests/s for {options.minutes:g} min: {options.load:.0%} of {len(served)} core(s)")
        before = metric(port, "process_cpu_seconds_total")
        outcome = asyncio.run(open_loop(port, bodies, rate, 60 * options.minutes, served))
        used = metric(port, "process_cpu_seconds_total") - before
    os.sched_setaffinity(0, mine)  # the record names the machine, not this process's share
    content = summary(outcome, options.minutes) | {
        "goals": GOALS,
        "minutes": options.minutes,
        "cores": len(served),
        "load_generator_apart": not served & asking,
        "service_cpu_ms": cpu * 1e3,
        "one_client_ms": wall * 1e3,
        "offered_per_s": rate,
        "load": options.load,
        "cpu_share_used": used / (60 * options.minutes * len(served)),
    }
    print(", ".join(f"{name} {value:.2f} ms" for name, value in content["ms"].items()))
    growth = content["memory_growth_mb"]
    grown = "too short to tell" if growth is None else f"{growth:+.1f} MB"
    print(f"{content['requests']} requests, {content['errors']} errors; memory {grown}")
    print(f"the server used {content['cpu_share_used']:.0%} of its core(s)")
    print(write_record("serving", content))


if __name__ == "__main__":
    main()
