"""The process that is timed: `python -m edgekd.latency.child`, JSON lines in, JSON lines out.

It imports the standard library, numpy and onnxruntime (and `edgekd.runtime` for a bundle), so that nothing
else competes for its caches and threads. Commands, each one line, each answered by one line:

    {"op": "load", "job": {...}, "session": {...}}  load a job, make its first call, warm it up
    {"op": "round", "job": name, "calls": n}        time n calls on both clocks, and the speed kernel around them
    {"op": "kernel"}                                time the speed kernel alone
    {"op": "stats"}                                 peak memory of this process

Two clocks read the same calls: the wall, and the CPU time of the calling thread (nothing where the system has none).

An answer is {"ok": ...} or {"error": message, "kind": an error class of `edgekd.errors`}.
The end of its input ends it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgekd.errors import require
from edgekd.latency.speed_kernel import HAS_CPU_CLOCK, SpeedKernel, cpu_ns
from edgekd.onnx_session import session_options

LEAD_IN, LEAD_IN_NS = 2, 3_000_000
"""Untimed calls at the start of a round, and how long they last at least: they refill the caches that other jobs, the
kernel and the garbage collector have used. A small model's first calls after these take up to three times as long."""


_WARM_BATCH = 5
_WARM_TOLERANCE = 0.03
_WARM_MAX_NS = 3_000_000_000
_KINDS = ("UsageError", "DataError", "UnavailableError", "EdgekdError")
_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class ChildError(Exception):
    """An error with the class of `edgekd.errors` that the parent raises."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Call(Protocol):
    """One loaded job: each call is one request."""

    provider: str

    def __call__(self) -> tuple[int, int, int] | None:
        """Serve one request; nanoseconds of tokenising, model, post-processing; None for a bare graph."""


class GraphCall:
    """An ONNX graph fed with fixed random token ids."""

    def __init__(self, job: dict[str, Any], session: dict[str, Any]) -> None:
        self._session = open_session(job["model"], session)
        self._feed = graph_feed(self._session, job)
        self.provider: str = self._session.get_providers()[0]

    def __call__(self) -> None:
        """Run the graph."""
        self._session.run(None, self._feed)


class BundleCall:
    """A bundle served by `edgekd.runtime`, one batch a call, cycling over the job's texts.

    It runs with the session options that it carries; `session` only says which provider it must run on.
    """

    def __init__(self, job: dict[str, Any], session: dict[str, Any]) -> None:
        import edgekd.runtime

        self._model: Any = edgekd.runtime.load(job["bundle"])  # type: ignore[attr-defined,unused-ignore]
        # JSON has no tuples: a pair of texts comes as a list.
        self._texts = [text if isinstance(text, str) else tuple(text) for text in job["texts"]]
        self._batch_size: int = job["batch_size"]
        self._next = 0
        self.provider: str = getattr(self._model, "provider", session["providers"][0])
        check_provider(job["bundle"], self.provider, session)

    def __call__(self) -> tuple[int, int, int]:
        """Answer the next texts."""
        texts = [self._texts[(self._next + i) % len(self._texts)] for i in range(self._batch_size)]
        self._next = (self._next + self._batch_size) % len(self._texts)
        parts = self._model.timed_predict(texts)[1:]
        tokenise, model, post = (round(seconds * 1e9) for seconds in parts)
        return tokenise, model, post


def open_session(model: str, options: dict[str, Any]) -> Any:
    """Open an ONNX file with the options of a `SessionSpec`.

    Raises:
        ChildError: The file is missing, or the provider asked for is not the one that runs.
    """
    import onnxruntime

    if not Path(model).is_file():
        raise ChildError("UsageError", f"{model}: no such file")
    chosen = session_options(options, options["threads"])
    settings: list[dict[str, str]] = [{} for _ in options["providers"]]
    settings[0] = dict(options.get("provider_options", {}))
    session = onnxruntime.InferenceSession(
        model, chosen, providers=list(options["providers"]), provider_options=settings
    )
    check_provider(model, session.get_providers()[0], options)
    return session


def check_provider(model: str, used: str, options: dict[str, Any]) -> None:
    """Refuse a silent fall-back.

    Raises:
        ChildError: `used` is not the first provider asked for.
    """
    asked = options["providers"][0]
    if used != asked:
        raise ChildError(
            "UnavailableError",
            f"{model}: asked for {asked}, but onnxruntime runs it with {used}: "
            "check the GPU's driver and libraries with `edgekd doctor`",
        )


def graph_feed(session: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Inputs (batch, length) for a graph: seeded random ids, a mask of ones, token types of zeros.

    Raises:
        ChildError: The graph takes an input that is none of these.
    """
    shape = (job["batch_size"], job["length"])
    ids = np.random.default_rng(job["seed"]).integers(1, max(2, job["vocabulary"]), size=shape)
    values = {
        "input_ids": ids,
        "attention_mask": np.ones(shape),
        "token_type_ids": np.zeros(shape),
        "position_ids": np.broadcast_to(np.arange(shape[1]), shape),
    }
    feed = {}
    for entry in session.get_inputs():
        if entry.name not in values or entry.type not in _TYPES:
            raise ChildError(
                "UsageError",
                f"{job['model']}: input {entry.name} of type {entry.type} is not one of an encoder's",
            )
        feed[entry.name] = values[entry.name].astype(_TYPES[entry.type])
    return feed


def warm_up(call: Call, max_ns: int = _WARM_MAX_NS) -> int:
    """Call until the median of a batch of calls stops falling, for at most `max_ns`.

    Returns:
        The number of calls made.
    """
    started, calls, best = time.perf_counter_ns(), 0, float("inf")
    while True:
        times = time_calls(call, _WARM_BATCH).wall
        calls += _WARM_BATCH
        median = float(np.median(times))
        if median > best * (1.0 - _WARM_TOLERANCE) or time.perf_counter_ns() - started > max_ns:
            return calls
        best = median


@dataclass
class Times:
    """Nanoseconds of single calls: on the wall, of this thread's CPU time, and the parts of a bundle's calls."""

    wall: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)
    parts: list[tuple[int, int, int]] = field(default_factory=list)


def time_calls(call: Call, calls: int, lead_in: int = 0, lead_in_ns: int = 0) -> Times:
    """Time single calls with the garbage collector off.

    Args:
        call: What to call.
        lead_in: Calls before these that are not timed, at least; the collector has run before them.
        lead_in_ns: For how long they go on, at least.
    """
    clock, times = time.perf_counter_ns, Times()
    gc.collect()
    gc.disable()
    try:
        began, led = clock(), 0
        while led < lead_in or clock() - began < lead_in_ns:
            call()
            led += 1
        for _ in range(calls):
            # The CPU clock is read inside the wall's: a preemption between the two reads only ever lengthens the wall.
            start, cpu = clock(), cpu_ns()
            part = call()
            spent, end = cpu_ns() - cpu, clock()
            times.wall.append(end - start)
            if HAS_CPU_CLOCK:
                times.cpu.append(spent)
            if part is not None:
                times.parts.append(part)
    finally:
        gc.enable()
    return times


def peak_memory_mb() -> float:
    """Peak resident memory of this process."""
    # On Linux `ru_maxrss` survives an exec, and so starts at the parent's peak: VmHWM does not.
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024.0
    except OSError:
        pass
    if sys.platform == "win32":
        psutil = require("psutil", "cpu", "read the memory of a process on Windows")
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


class Child:
    """The commands."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        self._kernel = SpeedKernel()

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do one command."""
        operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "load": self._load,
            "round": self._round,
            "kernel": lambda _: _kernel_figures(self._kernel.block()),
            "stats": lambda _: {"peak_memory_mb": peak_memory_mb()},
        }
        return operations[command["op"]](command)

    def _load(self, command: dict[str, Any]) -> dict[str, Any]:
        job = command["job"]
        start = time.perf_counter_ns()
        call: Call = (GraphCall if job["kind"] == "graph" else BundleCall)(job, command["session"])
        loaded = time.perf_counter_ns()
        call()
        first = time.perf_counter_ns()
        warm_up(call)
        self._calls[job["name"]] = call
        return {
            "provider": call.provider,
            "load_ms": (loaded - start) / 1e6,
            "first_call_ms": (first - loaded) / 1e6,
        }

    def _round(self, command: dict[str, Any]) -> dict[str, Any]:
        call = self._calls[command["job"]]
        before = self._kernel.block()
        times = time_calls(call, command["calls"], LEAD_IN, LEAD_IN_NS)
        after = self._kernel.block()
        around = ((before[0] + after[0]) / 2, (before[1] + after[1]) / 2)
        return {"wall_ns": times.wall, "cpu_ns": times.cpu, "parts_ns": times.parts} | _kernel_figures(around)


def _kernel_figures(block: tuple[float, float]) -> dict[str, Any]:
    return {"product_ns": block[0], "walk_ns": block[1]}


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else text[:500] + "..."


def _kind(error: BaseException) -> str:
    if isinstance(error, ChildError):
        return error.kind
    return next((base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS), "EdgekdError")


def main() -> None:
    """Serve commands until the input ends."""
    # Ctrl-C reaches the whole process group: the parent decides, and closing the input ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Native libraries write to stdout: keep it for the answers, and send theirs to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    child = Child()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            reply: dict[str, Any] = {"ok": child.answer(command)}
        except Exception as error:
            where = command.get("job", {})
            name = where.get("name", "") if isinstance(where, dict) else where
            message = _one_line(error)
            if _kind(error) == "EdgekdError":
                message = f"{name}: {message}"
            reply = {"error": message, "kind": _kind(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
