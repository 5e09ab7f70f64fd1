"""The speed log: how fast this machine usually is, by a small kernel of fixed cost, read in CPU time.

A shared host has several speeds, and stays in one for seconds or minutes: what is measured in a minute must be seen
beside what the machine usually does. Every round of a measurement brings the kernel's times around it; between
measurements a process of its own runs the kernel every two seconds. Kept by machine, in JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgekd.errors import EdgekdError
from edgekd.latency.interval import Floats
from edgekd.latency.machine import fingerprint, read_machine
from edgekd.latency.speed_kernel import KERNEL_VERSION
from edgekd.store import replacing

EVERY_SECONDS = 2.0

_SCHEMA_VERSION = 1
_MOST = 20_000  # half a day; of more, the older half is forgotten
# Where this process has computed for more than so much of the time, the kernel shows its own load, not the machine.
_OWN = 0.2
_INSANE = 5.0


class SpeedLog:
    """Times of the speed kernel on one machine.

    Args:
        path: The file; None keeps the log in memory alone.
        machine: What the times hold for; a file of another machine or version is begun anew.

    Attributes:
        note: What the user should know of the file that was there; empty where nothing is wrong.
    """

    def __init__(self, path: Path | None = None, machine: str = "") -> None:
        self._path, self._machine = path, machine
        self.note, self._torn = "", False
        self._rows: list[tuple[float, float, float, float]] = self._read() if path is not None else []
        self._before = len(self._rows)
        self._due, self._cpu, self._clock = 0.0, time.process_time(), time.monotonic()
        self._lock = threading.Lock()

    @staticmethod
    def of_this_machine(folder: Path) -> SpeedLog:
        """The log of this machine in the folder of all logs, see `Store.speed_folder`."""
        here = read_machine()
        key = f"{fingerprint(here)}-{here.versions.get('numpy', '')}-k{KERNEL_VERSION}"
        return SpeedLog(folder / f"{key}.jsonl", key)

    def add(self, product_ms: float, walk_ms: float) -> None:
        """Take a look into the log; one of less than two seconds after the last is left out."""
        with self._lock:
            now, cpu = time.monotonic(), time.process_time()
            if now < self._due:
                return
            own = (cpu - self._cpu) / max(1e-3, now - self._clock)
            self._due, self._cpu, self._clock = now + EVERY_SECONDS, cpu, now
            row = (round(time.time(), 1), round(product_ms, 5), round(walk_ms, 5), round(own, 2))
            self._rows.append(row)
            self._write(row)

    def looks(self, *, this_run: bool = False) -> Floats:
        """(n, 3) wall-clock time in s, CPU ms of the product, of the walk; those under our own load left out.

        Args:
            this_run: Only those since this log was opened.
        """
        rows = self._rows[self._before :] if this_run else self._rows
        free = np.asarray([row[:3] for row in rows if row[3] <= _OWN], dtype=np.float64).reshape(-1, 3)
        if not len(free):
            return free
        # No neighbour takes so much CPU time: the machine slept, or the line is damaged.
        sane: Floats = free[(free[:, 1:] < _INSANE * np.median(free[:, 1:], axis=0)).all(axis=1)]
        return sane

    def speeds(self, *, this_run: bool = True) -> Floats:
        """(n,) speed at each look, 1 being the usual (median) one; empty without looks."""
        usual, found = self.looks(), self.looks(this_run=this_run)
        if not len(found):
            return np.zeros(0)
        slowness = np.log(found[:, 1:] / np.median(usual[:, 1:], axis=0)).mean(axis=1)
        speeds: Floats = np.exp(-slowness)
        return speeds

    def summary(self) -> tuple[float, float] | None:
        """Slowest and fastest speed during this run, 1 being the usual one; without the odd twentieth at each end."""
        found = self.speeds()
        if not len(found):
            return None
        low, high = np.percentile(found, [5, 95])
        return float(low), float(high)

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Run the kernel every two seconds while the block runs, in a process of its own."""
        from edgekd.latency.timer import ChildProcess

        ended = threading.Event()
        try:
            child = ChildProcess(timeout=60.0)
        except EdgekdError:  # a log that cannot be kept must not stop the run
            yield
            return

        def sample() -> None:
            while not ended.wait(EVERY_SECONDS / 4):
                if time.monotonic() < self._due:
                    continue
                with contextlib.suppress(Exception):  # a log that stops must not stop the run
                    answer = child.ask({"op": "kernel"})
                    self.add(answer["product_ns"] / 1e6, answer["walk_ns"] / 1e6)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            child.kill()
            thread.join(timeout=5.0)

    def _read(self) -> list[tuple[float, float, float, float]]:
        assert self._path is not None
        try:
            text = self._path.read_text(encoding="utf-8")
            self._torn = not text.endswith("\n")  # a run was killed while it wrote
            first, *lines = text.splitlines()
            head = json.loads(first)
            mine = head == self._head()
        except FileNotFoundError:
            return []
        except (OSError, ValueError):
            mine, lines = False, []
        if not mine:
            what = f"{self._path}: a speed log of another machine or version, or damaged"
            try:
                self._path.unlink()
                self.note = f"{what}: begun anew"
            except OSError as error:
                self.note = f"{what}, and it cannot be replaced ({error.strerror}): this run's is not kept"
                self._path = None
            return []
        rows = [row for line in lines if (row := _row(line)) is not None]
        if len(rows) > _MOST:
            rows = rows[-_MOST // 2 :]
            with contextlib.suppress(OSError), replacing(self._path) as file:
                file.write_text("".join(json.dumps(r) + "\n" for r in (self._head(), *rows)), encoding="utf-8")
        return rows

    def _write(self, row: tuple[float, ...]) -> None:
        if self._path is None:
            return
        with contextlib.suppress(OSError):  # a full or read-only disk: the log goes on in memory
            new = not self._path.exists()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as handle:
                begin = json.dumps(self._head()) + "\n" if new else "\n" if self._torn else ""
                handle.write(begin + json.dumps(row) + "\n")
                self._torn = False

    def _head(self) -> dict[str, object]:
        return {"schema_version": _SCHEMA_VERSION, "machine": self._machine}


def _row(line: str) -> tuple[float, float, float, float] | None:
    """One look; None for a line that was cut off or holds something else."""
    try:
        at, product, walk, own = map(float, json.loads(line))
    except (ValueError, TypeError):
        return None
    finite = all(np.isfinite((at, product, walk, own)))
    return (at, product, walk, own) if finite and min(product, walk) > 0 else None
