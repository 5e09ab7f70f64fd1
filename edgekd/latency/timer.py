"""Timing jobs in child processes that do nothing else. Imports only the standard library."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import edgekd
from edgekd import errors
from edgekd.errors import EdgekdError, UsageError

_PACKAGE_PARENT = str(Path(edgekd.__file__).resolve().parent.parent)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


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
    """One round: some calls of one job in one process, without a pause.

    Attributes:
        process: Index of the child process.
        total_ms: Duration of each call.
        parts_ms: Tokenising, model and post-processing of each call; empty for a graph.
        reference_ms: Duration of the reference product around the round (the slower of before and after).
        memory_ms: Duration of the reference walk through memory (the slower of before and after).
        waited: Share of the kernels' time its process was kept off the CPU.
    """

    process: int
    total_ms: tuple[float, ...]
    parts_ms: tuple[tuple[float, float, float], ...] = ()
    reference_ms: float = 1.0
    memory_ms: float = 1.0
    waited: float = 0.0


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

    def look(self, rounds: int) -> tuple[RoundSample, ...]:
        """Rounds without any calls, for what the reference kernels tell of the machine."""

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
        timeout: Seconds after which an answer is given up.
    """

    def __init__(
        self, jobs: Sequence[Job], session: Mapping[str, Any], processes: int = 1, timeout: float = 900.0
    ) -> None:
        self._jobs = {job.name: job for job in jobs}
        if len(self._jobs) != len(jobs):
            raise UsageError("jobs timed together need different names")
        self._session = dict(session)
        self._turns = dict.fromkeys(self._jobs, 0)
        self._loads: dict[tuple[str, int], dict[str, Any]] = {}
        self._children: list[_ChildProcess] = []
        try:
            for _ in range(processes):
                self._children.append(_ChildProcess(timeout))
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
        answer = child.ask({"op": "round", "job": job, "calls": calls})
        if min(*answer["total_ns"], answer["reference_ns"], answer["memory_ns"]) <= 0:
            raise EdgekdError(f"{job}: the clock of this machine gave a duration of zero or less")
        return _sample(process, answer)

    def load_reports(self, job: str) -> tuple[LoadReport, ...]:
        """See `Timer.load_reports`."""
        reports = []
        for (name, process), load in sorted(self._loads.items()):
            if name == job:
                memory = self._children[process].ask({"op": "stats"})["peak_memory_mb"]
                reports.append(LoadReport(process, load["provider"], load["load_ms"], load["first_call_ms"], memory))
        return tuple(reports)

    def look(self, rounds: int) -> tuple[RoundSample, ...]:
        """See `Timer.look`."""
        answer = self._children[0].ask({"op": "look", "rounds": rounds})
        return tuple(_sample(0, of_round) for of_round in answer["rounds"])

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


def _sample(process: int, answer: Mapping[str, Any]) -> RoundSample:
    """A child's answer in milliseconds."""
    return RoundSample(
        process=process,
        total_ms=tuple(ns / 1e6 for ns in answer["total_ns"]),
        parts_ms=tuple((a / 1e6, b / 1e6, c / 1e6) for a, b, c in answer["parts_ns"]),
        reference_ms=answer["reference_ns"] / 1e6,
        memory_ms=answer["memory_ns"] / 1e6,
        waited=answer["waited"],
    )


class _ChildProcess:
    """One child and its pipes."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        # A file, not a pipe: a chatty library would fill a pipe that nobody reads, and block.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgekd.latency.child"],
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
    """The parent's environment, with the package importable and the reference kernel on one thread."""
    path = os.environ.get("PYTHONPATH")
    return (
        dict(os.environ)
        | dict.fromkeys(_ONE_THREAD, "1")
        | {"PYTHONPATH": _PACKAGE_PARENT + (os.pathsep + path if path else "")}
    )
