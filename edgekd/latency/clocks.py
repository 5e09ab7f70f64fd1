"""Which clock a latency is judged on: service time (the calling thread's CPU time) or response time (the wall).

Service time is what the device needs for a call, whoever else runs on it; response time is what a caller waits, the
neighbours' share included. Both are always read on the same calls.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING

from edgekd.errors import UsageError
from edgekd.latency import machine

if TYPE_CHECKING:
    from edgekd.settings.target import AskedClock, Clock


def judged_clock(asked: AskedClock, kind: str, threads: int) -> Clock:
    """The clock that a target's latency is judged on.

    Args:
        asked: "auto" takes service time for one CPU thread, and response time where CPU time does not tell all: for
            more threads, a GPU, a CPU quota below the threads (throttling is part of the device), Windows, and a
            system without a thread's clock.
        kind: Of the target.

    Raises:
        UsageError: Service time was asked for where it does not exist, or would leave out most of the work.
    """
    if asked == "response":
        return "response"
    why = _only_response(kind, threads)
    if asked == "service" and why:
        raise UsageError(f"--clock service: {why}; leave it out, or use --clock response")
    quota = machine.cpu_quota()
    throttled = quota is not None and quota < threads
    return "response" if why or (throttled and asked == "auto") else "service"


def _only_response(kind: str, threads: int) -> str:
    """Why service time says nothing of a target; empty where it does."""
    if kind != "onnxruntime-cpu":
        return "a GPU's work is not in the CPU time of the thread that waits for it"
    if threads > 1:
        return f"with {threads} threads most of the work is not in the CPU time of the thread that calls"
    return no_thread_clock()


def no_thread_clock() -> str:
    """Why a thread's CPU time cannot be read here; empty where it can."""
    if not hasattr(time, "thread_time_ns"):
        return "this system has no clock of a thread's CPU time"
    if platform.system() == "Windows":
        return "the clock of a thread's CPU time is too coarse on Windows"
    return ""
