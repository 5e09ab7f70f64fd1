"""The serving process among clients that do it harm, in closed loops of 16 clients.

    python benchmarks/serving_stress.py --bundle ./bundle long      [--seconds 240]
    python benchmarks/serving_stress.py --bundle ./bundle hostile   [--seconds 600]
    python benchmarks/serving_stress.py --bundle ./bundle terminate [--times 20]

long: fifteen clients with short texts; the sixteenth sends short ones, or texts as long as the server takes, in turns
of ten seconds. The p95 of the fifteen is compared.
hostile: sixteen clients with short texts, beside slow headers, slow bodies, idle connections, the longest texts, and
clients that leave before they are answered. /healthz is asked ten times a second.
terminate: SIGTERM under the load of sixteen clients; a request that was sent and got neither answer nor refusal is
lost.

The server runs on all CPUs of this process but the last, the clients on the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from cold_start import parser_of, read_texts
from record import write_record

from serving import exchange, growth_mb, metric, post, server

CLIENTS = 16
GOALS = {
    "long": {"p95_ratio": 1.5},
    "hostile": {"healthz_p99_ms": 100.0, "errors": 0, "memory_growth": 0.02},
    "terminate": {"lost": 0, "exit": 0},
}
TURN_S = 10.0


HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Client:
    """One connection that is kept alive, and opened again where the server has closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: bytes) -> int:
        """The status of the answer."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        try:
            status, closes = await exchange(reader, writer, sent)
        except (OSError, EOFError):
            self.close()
            raise
        if closes:
            self.close()
        return status

    def close(self) -> None:
        """Before the next request."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def loop(port: int, pick: Any, until: float, found: list[tuple[float, float]], errors: Counter[str]) -> None:
    """One client that asks again as soon as it is answered; (when, seconds) of each answer go to `found`."""
    client = Client(port)
    while time.perf_counter() < until:
        start = time.perf_counter()
        try:
            status = await client.ask(pick())
        except (OSError, EOFError) as error:
            errors[type(error).__name__] += 1
            continue
        if status != 200:
            errors[str(status)] += 1
        found.append((start, time.perf_counter() - start))
    client.close()


def percentiles(seconds: Any) -> dict[str, float]:
    found = {f"p{q:g}": float(np.percentile(seconds, q)) * 1e3 for q in (50, 95, 99)}
    return found | {"max": float(max(seconds)) * 1e3}


async def with_a_long_text(port: int, short: list[bytes], long: bytes, seconds: float) -> dict[str, Any]:
    rng, started = random.Random(0), time.perf_counter()
    until = started + seconds
    found: list[tuple[float, float]] = []
    errors: Counter[str] = Counter()

    def is_long(at: float) -> bool:
        return int((at - started) / TURN_S) % 2 == 1

    def sixteenth() -> bytes:
        return long if is_long(time.perf_counter()) else rng.choice(short)

    others: list[tuple[float, float]] = []
    await asyncio.gather(
        loop(port, sixteenth, until, others, errors),
        *(loop(port, lambda: rng.choice(short), until, found, errors) for _ in range(CLIENTS - 1)),
    )
    # The first second of a turn still holds what the turn before has sent.
    inside = [(at, took) for at, took in found if (at - started) % TURN_S > 1]
    alone = [took for at, took in inside if not is_long(at)]
    beside = [took for at, took in inside if is_long(at)]
    by_turn = [[took for at, took in inside if int((at - started) / TURN_S) == i] for i in range(int(seconds / TURN_S))]
    return {
        "short_ms": percentiles(alone),
        "beside_long_ms": percentiles(beside),
        "p95_ratio": percentiles(beside)["p95"] / percentiles(alone)["p95"],
        "p95_ms_by_turn": [percentiles(turn)["p95"] for turn in by_turn if turn],
        "long_requests_ms": percentiles([took for at, took in others if is_long(at)]),
        "requests": len(found) + len(others),
        "errors": dict(errors),
    }


async def slow_headers(port: int, until: float) -> None:
    """A header every two seconds, for ever."""
    while time.perf_counter() < until:
        with contextlib.suppress(OSError, EOFError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /predict HTTP/1.1\r\nhost: localhost\r\n")
            while time.perf_counter() < until and not writer.is_closing():
                writer.write(b"x-more: 1\r\n")
                await writer.drain()
                await asyncio.sleep(2)
        await asyncio.sleep(0.2)


async def idle(port: int, until: float) -> None:
    """A connection that says nothing, or less than a body."""
    while time.perf_counter() < until:
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if random.random() < 0.5:
                writer.write(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                             b"content-length: 999\r\n\r\n{")  # fmt: skip
            await asyncio.wait_for(reader.read(1), 30)
            writer.close()
        await asyncio.sleep(0.2)


async def leaves(port: int, body: bytes, until: float) -> None:
    """Asks for much, and goes."""
    while time.perf_counter() < until:
        with contextlib.suppress(OSError, EOFError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(body)
            await writer.drain()
            await asyncio.sleep(random.uniform(0, 0.3))
            writer.transport.abort()
        await asyncio.sleep(0.5)


async def health(port: int, until: float, found: list[tuple[float, float]], errors: Counter[str]) -> None:
    client = Client(port)
    while time.perf_counter() < until:
        start = time.perf_counter()
        try:
            if await client.ask(HEALTH) != 200:
                errors["healthz"] += 1
        except (OSError, EOFError) as error:
            errors[f"healthz {type(error).__name__}"] += 1
        found.append((start, time.perf_counter() - start))
        await asyncio.sleep(max(0.1 - (time.perf_counter() - start), 0))


async def memory(port: int, until: float, found: list[tuple[float, float]]) -> None:
    started = time.perf_counter()
    while time.perf_counter() < until:
        with contextlib.suppress(OSError):
            resident = await asyncio.to_thread(metric, port, "process_resident_memory_bytes")
            found.append((time.perf_counter() - started, resident))
        await asyncio.sleep(5)


async def among_hostile(port: int, short: list[bytes], long: bytes, seconds: float) -> dict[str, Any]:
    rng, until = random.Random(0), time.perf_counter() + seconds
    found: list[tuple[float, float]] = []
    looked: list[tuple[float, float]] = []
    sizes: list[tuple[float, float]] = []
    errors: Counter[str] = Counter()
    unlike: Counter[str] = Counter()
    # Opened as fast as they come, the connections that ask nothing are far more than the server keeps.
    await asyncio.gather(
        *(loop(port, lambda: rng.choice(short), until, found, errors) for _ in range(CLIENTS)),
        loop(port, lambda: long, until, [], unlike),
        health(port, until, looked, errors),
        memory(port, until, sizes),
        *(slow_headers(port, until) for _ in range(400)),
        *(idle(port, until) for _ in range(400)),
        *(leaves(port, long, until) for _ in range(8)),
    )
    growth = growth_mb(sizes)
    late = [size for at, size in sizes if at > sizes[-1][0] / 3]
    return {
        "requests": len(found),
        "ms": percentiles([took for _, took in found]),
        "errors": dict(errors),
        "errors_of_the_long": dict(unlike),
        "healthz_ms": percentiles([took for _, took in looked]),
        "memory_mb": [[round(at, 1), round(size / 1e6, 1)] for at, size in sizes],
        "memory_growth": None if growth is None else growth * 1e6 / float(np.median(late)),
    }


async def until_the_end(port: int, short: list[bytes], pid: int) -> tuple[Counter[str], float]:
    """Sixteen clients; SIGTERM after a second. What became of each request that was sent, and seconds to the end."""
    rng, fates, ended = random.Random(0), Counter(), asyncio.Event()

    async def client() -> None:
        while not ended.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                # Nobody listens any more: nothing was sent.
                fates["not connected"] += 1
                return
            while True:
                try:
                    status, closes = await exchange(reader, writer, rng.choice(short))
                except (OSError, EOFError) as error:
                    fates[f"lost: {type(error).__name__}"] += 1
                    break
                fates[str(status)] += 1
                if closes:
                    writer.close()
                    # A client that was told to come back later goes to another server.
                    return

    tasks = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    await asyncio.sleep(1)
    start = time.perf_counter()
    os.kill(pid, signal.SIGTERM)
    await asyncio.wait(tasks, timeout=30)
    ended.set()
    return fates, time.perf_counter() - start


def terminate(bundle: Path, short: list[bytes], times: int, served: set[int], asking: set[int]) -> dict[str, Any]:
    runs = []
    for _ in range(times):
        os.sched_setaffinity(0, served)
        running = subprocess.Popen(
            [sys.executable, "-m", "edgekd.serving", str(bundle), "--port", "0"], stderr=subprocess.PIPE, text=True
        )
        os.sched_setaffinity(0, asking)
        assert running.stderr is not None
        port = int(running.stderr.readline().rpartition(":")[2])
        fates, seconds = asyncio.run(until_the_end(port, short, running.pid))
        code = running.wait(30)
        runs.append({"fates": dict(fates), "seconds": round(seconds, 2), "exit": code, "said": running.stderr.read()})
        print(runs[-1])
    fates = [item for run in runs for item in run["fates"].items()]
    lost = sum(count for fate, count in fates if fate.startswith("lost") or fate == "500")
    return {"runs": runs, "lost": lost, "exits": sorted({run["exit"] for run in runs})}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("part", choices=GOALS)
    options = parser.parse_args()
    texts = read_texts(options.texts, 1000)
    short = [post(json.dumps({"texts": [text]}).encode()) for text in texts]
    long = post(json.dumps({"texts": [". " * 7900] * 60}).encode())
    mine = sorted(os.sched_getaffinity(0))
    served, asking = set(mine[:-1]) or set(mine), {mine[-1]}
    if options.part == "terminate":
        content = terminate(options.bundle, short, options.times, served, asking)
    else:
        seconds = options.seconds or (240.0 if options.part == "long" else 600.0)
        run = with_a_long_text if options.part == "long" else among_hostile
        with server(options.bundle, served) as port:
            os.sched_setaffinity(0, asking)
            asyncio.run(loop(port, lambda: random.choice(short), time.perf_counter() + 3, [], Counter()))
            content = asyncio.run(run(port, short, long, seconds)) | {"seconds": seconds}
    os.sched_setaffinity(0, mine)
    content |= {"goals": GOALS[options.part], "clients": CLIENTS, "cores": len(served)}
    print(json.dumps({key: value for key, value in content.items() if key not in ("memory_mb", "runs")}, indent=1))
    print(write_record(f"serving_{options.part}", content))


if __name__ == "__main__":
    main()
