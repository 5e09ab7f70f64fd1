"""Timing jobs in child processes that do nothing else. Imports only the standard library."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

import edgekd
from edgekd import errors
from edgekd.errors import EdgekdError, UsageError

if TYPE_CHECKING:
    from edgekd.latency.speed_log import SpeedLog

_PACKAGE_PARENT = str(Path(edgekd.__file__).resolve().parent.parent)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# A round in which a clock stood still or went back says nothing, and is taken again so often at most: a virtual
# machine's clock does so once in hours.
_CLOCK_TRIES = 3

Text = str | tuple[str, str]
"""One text, or a pair of them."""


@dataclass(frozen=True)
class GraphJob:
    """An ONNX graph, fed with random token ids.

    Attributes:
        name: Unique among the jobs of one timer.
        model: The ONNX file.
        batch_size: Texts a call.
        length: Tokens a text.
        vocabulary: Ids drawn are below this; at most the rows of the graph's embedding.
        seed: Of the ids.
        session: A `SessionSpec` as JSON, where it is not the target's own.
    """

    name: str
    model: Path
    batch_size: int = 1
    length: int = 128
    vocabulary: int = 1000
    seed: int = 0
    session: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As the child process takes it."""
        return asdict(self) | {"kind": "graph", "model": str(self.model)}


@dataclass(frozen=True)
class BundleJob:
    """A bundle, end to end: one call tokenises, runs and post-processes `batch_size` texts, cycling over `texts`."""

    name: str
    bundle: Path
    texts: tuple[Text, ...]
    batch_size: int = 1

    def __post_init__(self) -> None:
        if not self.texts:
            raise UsageError(f"{self.bundle}: no texts to time it with")

    def to_json(self) -> dict[str, Any]:
        """As the child process takes it."""
        return {"kind": "bundle", "name": self.name, "bundle": str(self.bundle)} | {
            "texts": list(self.texts),
            "batch_size": self.batch_size,
        }


Job = GraphJob | BundleJob


@dataclass(frozen=True)
class RoundSample:
    """One round: some calls of one job in one process, without a pause, read on two clocks.

    Attributes:
        process: Index of the child process.
        at: When it ended, in seconds since the timer was made.
        wall_ms: Duration of each call.
        cpu_ms: CPU time of the calling thread in each call; empty where the system has no such clock.
        parts_ms: Tokenising, model and post-processing of each call, on the wall; empty for a graph.
        product_ms: CPU time of the speed kernel's product around the round (mean of before and after).
        walk_ms: CPU time of its walk through memory.
    """

    process: int
    at: float
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...] = ()
    parts_ms: tuple[tuple[float, float, float], ...] = ()
    product_ms: float = 1.0
    walk_ms: float = 1.0


@dataclass(frozen=True)
class LoadReport:
    """What loading a job in one process cost. The peak memory is the process's, all its jobs together."""

    process: int
    provider: str
    load_ms: float
    first_call_ms: float
    peak_memory_mb: float


class Timer(Protocol):
    """Times rounds of the jobs it was made for."""

    def round(self, job: str, calls: int) -> RoundSample:
        """Time `calls` calls of a job in the process whose turn it is; the first there loads and warms it."""

    def load_reports(self, job: str) -> tuple[LoadReport, ...]:
        """One report for each process that has loaded the job."""

    def close(self) -> None:
        """End the processes."""

    def __enter__(self) -> Timer:
        """Nothing more than itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


class ProcessTimer:
    """A timer over fresh child processes, one working at a time while the parent sleeps on its pipe.

    Args:
        jobs: What can be timed; names must differ.
        session: A `SessionSpec` as JSON.
        processes: How many children load each job; rounds of a job go round them.
        log: The machine's speed log, which the kernel's times around the rounds are added to.
        timeout: Seconds after which an answer is given up.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        session: Mapping[str, Any],
        processes: int = 1,
        log: SpeedLog | None = None,
        timeout: float = 900.0,
    ) -> None:
        self._log, self._began = log, time.monotonic()
        self._jobs = {job.name: job for job in jobs}
        if len(self._jobs) != len(jobs):
            raise UsageError("jobs timed together need different names")
        self._session = dict(session)
        self._turns = dict.fromkeys(self._jobs, 0)
        self._loads: dict[tuple[str, int], dict[str, Any]] = {}
        self._children: list[ChildProcess] = []
        try:
            for _ in range(processes):
                self._children.append(ChildProcess(timeout))
        except BaseException:
            self.close()
            raise

    def round(self, job: str, calls: int) -> RoundSample:
        """See `Timer.round`.

        Raises:
            UsageError: The model file is missing or takes inputs that no encoder takes.
            UnavailableError: The provider asked for is not the one that runs.
            EdgekdError: The child died, or answered nonsense.
        """
        process = self._turns[job] % len(self._children)
        self._turns[job] += 1
        child = self._children[process]
        if (job, process) not in self._loads:
            asked = self._jobs[job]
            own = asked.session if isinstance(asked, GraphJob) else None
            load = {"op": "load", "job": asked.to_json(), "session": self._session if own is None else dict(own)}
            self._loads[job, process] = child.ask(load)
        for _ in range(_CLOCK_TRIES):
            answer = child.ask({"op": "round", "job": job, "calls": calls})
            if min(*answer["wall_ns"], *answer["cpu_ns"], answer["product_ns"], answer["walk_ns"]) > 0:
                break
        else:
            raise EdgekdError(f"{job}: the clock of this machine gave durations of zero or less, time and again")
        found = RoundSample(
            process=process,
            at=time.monotonic() - self._began,
            wall_ms=_ms(answer["wall_ns"]),
            cpu_ms=_ms(answer["cpu_ns"]),
            parts_ms=tuple((a / 1e6, b / 1e6, c / 1e6) for a, b, c in answer["parts_ns"]),
            product_ms=answer["product_ns"] / 1e6,
            walk_ms=answer["walk_ns"] / 1e6,
        )
        if self._log is not None:
            self._log.add(found.product_ms, found.walk_ms)
        return found

    def load_reports(self, job: str) -> tuple[LoadReport, ...]:
        """See `Timer.load_reports`."""
        reports = []
        for (name, process), load in sorted(self._loads.items()):
            if name == job:
                memory = self._children[process].ask({"op": "stats"})["peak_memory_mb"]
                reports.append(LoadReport(process, load["provider"], load["load_ms"], load["first_call_ms"], memory))
        return tuple(reports)

    def close(self) -> None:
        """Kill the children: they hold nothing worth a farewell."""
        for child in self._children:
            child.kill()
        self._children = []

    def __enter__(self) -> ProcessTimer:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, on errors and Ctrl-C too."""
        self.close()


def _ms(nanoseconds: Sequence[int]) -> tuple[float, ...]:
    return tuple(ns / 1e6 for ns in nanoseconds)


class ChildProcess:
    """One child and its pipes."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        # A file, not a pipe: a chatty library would fill a pipe that nobody reads, and block.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            # -P: no module is taken from the folder that a user happens to stand in.
            [sys.executable, "-P", "-m", "edgekd.latency.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            env=_environment(),
        )

    def ask(self, command: dict[str, Any]) -> Any:
        """Send one command and sleep until its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(self._timeout, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if not line.endswith("\n"):
            raise EdgekdError(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["kind"])(answer["error"])
        return answer["ok"]

    def kill(self) -> None:
        """End the process now; closing twice is harmless."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._log.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        signalled = f"was ended by signal {-code} (9: out of memory, or over time)"
        how = signalled if code < 0 else f"exited with {code}"
        tail = " | ".join(line.strip() for line in lines[-3:]) if lines else "it wrote nothing to stderr"
        return f"the latency process {how}: {tail}"


def _environment() -> dict[str, str]:
    """The parent's environment, with the package importable and the speed kernel on one thread."""
    # An empty entry would be the current folder.
    path = [_PACKAGE_PARENT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return dict(os.environ) | dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": os.pathsep.join(path)}
