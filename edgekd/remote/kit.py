"""What runs on a device that is elsewhere: copied into the kits, so it imports only numpy and its own neighbours.

A kit is a folder with a sealed `kit.json` that names every other file by its SHA-256; what the device sends back is
sealed too. A seal is a checksum, not a signature: it finds an edit or a broken copy, not a forger.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import UnavailableError, UsageError
from edgekd.latency import machine
from edgekd.latency.clocks import judged_clock
from edgekd.latency.timer import Job, ProcessTimer
from edgekd.reading import read_json, sha256_of
from edgekd.store import write_json

if TYPE_CHECKING:
    from edgekd.settings.target import AskedClock, Clock

SCHEMA_VERSION = 1
SEAL = "sha256"
KIT = "kit.json"
CODE = "edgekd"

# One short draw repeated, of a prime length so that no two rows of a matrix are alike.
_PERIOD = 65_537
_CHUNK_BYTES = 1 << 24

_WORDS = ("please", "turn", "the", "kitchen", "lights", "off", "and", "play", "some", "quiet", "music,", "at", "10:30")


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its checksum."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    return plain | {SEAL: _digest(plain)}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with its checksum, whole or not at all."""
    write_json(path, seal(content))


def read_sealed(path: Path, kind: str, again: str) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Args:
        kind: Its `kind`, such as "device".
        again: How to get another one, to end the errors with.

    Raises:
        UsageError: It is missing, not JSON, of another kind or schema version, or was edited.
    """
    content = read_json(path, again)
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise UsageError(f"{path}: not a {kind} file of edgekd; {again}")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: schema version {content.get('schema_version')}, but this edgekd reads {SCHEMA_VERSION}; "
            f"{again} with the same edgekd"
        )
    try:
        whole = content.get(SEAL) == seal(content)[SEAL]
    except ValueError:  # not a number: nothing that was sealed
        whole = False
    if not whole:
        raise UsageError(f"{path}: it does not match its checksum, so it was edited or damaged; {again}")
    return content


def open_kit(folder: Path, kind: str) -> dict[str, Any]:
    """Read a kit's kit.json, and check every file that it names.

    Raises:
        UsageError: A file is missing or does not match its checksum.
        UnavailableError: The onnxruntime here is too old for the kit's graphs.
    """
    again = "unpack the kit again"
    kit = read_sealed(folder / KIT, kind, again)
    for name, expected in kit["files"].items():
        if not (folder / name).is_file():
            raise UsageError(f"{folder / name}: missing; {again}")
        if sha256_of(folder / name) != expected:
            raise UsageError(f"{folder / name}: does not match its checksum in {KIT}; {again}")
    check_runtime(kit["onnxruntime"], kit["opset"])
    return kit


def check_runtime(needed: str, opset: int) -> None:
    """Refuse an onnxruntime that is too old.

    Args:
        needed: The oldest version that will do, such as "1.12".
        opset: Of the graphs.

    Raises:
        UnavailableError: It is older, or there is none.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UnavailableError("onnxruntime is missing: pip install onnxruntime") from error
    found: str = onnxruntime.__version__
    if _numbers(found) < _numbers(needed):
        raise UnavailableError(
            f"onnxruntime {found} is too old for these graphs (opset {opset} needs {needed} or newer): "
            "pip install --upgrade onnxruntime"
        )


class KitTarget:
    """What `edgekd.latency.measure` needs of a target: session options, as a `SessionSpec` in JSON, and timers."""

    def __init__(self, session: Mapping[str, Any], asked: AskedClock = "auto") -> None:
        self.session, self.asked = dict(session), asked

    @property
    def clock(self) -> Clock:
        """See `edgekd.latency.targets.base.Target.clock`."""
        cpu = self.session["providers"][0] == "CPUExecutionProvider"
        return judged_clock(self.asked, "onnxruntime-cpu" if cpu else "gpu", self.session["threads"])

    def usual_speed(self) -> None:
        """See `edgekd.latency.targets.base.Target.usual_speed`: a kit keeps nothing on its device."""

    def timer(self, jobs: Sequence[Job], processes: int = 1) -> ProcessTimer:
        """See `edgekd.latency.targets.base.Target.timer`."""
        return ProcessTimer(jobs, self.session, processes)


def write_weights(folder: Path, sizes: Mapping[str, int]) -> None:
    """Make the weights that a plan kit's graphs point into: random, since latency does not depend on them.

    Args:
        folder: Where the graphs lie.
        sizes: Bytes of "float32.bin" (normal values of deviation 0.02) and of "int8.bin" (even ones).
    """
    rng = np.random.default_rng(0)
    draws = {
        "float32.bin": (rng.standard_normal(_PERIOD) * 0.02).astype("<f4").tobytes(),
        "int8.bin": rng.integers(0, 256, _PERIOD, dtype=np.uint8).tobytes(),
    }
    for name, size in sizes.items():
        block = draws[name] * max(1, _CHUNK_BYTES // len(draws[name]))
        with (folder / name).open("wb") as handle:
            for start in range(0, size, len(block)):
                handle.write(block[: size - start])


def text_work_ms(repeats: int = 200) -> float:
    """Milliseconds of a fixed piece of work on strings, undisturbed: stands for tokenising where it cannot be timed.

    Tokenising is branches and look-ups, not arithmetic: a matrix product would say little of it.
    """
    text = " ".join(_WORDS * 8)
    known = {word: i for i, word in enumerate(_WORDS)}
    pattern = re.compile(r"\w+|[^\w\s]")
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        for match in pattern.finditer(text.lower()):
            word = match.group()
            if word not in known:
                for end in range(len(word), 0, -1):
                    if word[:end] in known:
                        break
        times.append(time.perf_counter_ns() - start)
    return float(np.percentile(times, 10)) / 1e6


def describe_here(extra: Iterable[str] = ()) -> dict[str, Any]:
    """This machine, as the product stores it.

    Args:
        extra: Further distributions whose versions matter, such as "tokenizers".
    """
    from importlib import metadata

    here = machine.read_machine()
    return {
        "machine": here.to_json(),
        "fingerprint": machine.fingerprint(here),
        "instruction_set": machine.detect_instruction_set(),
        "versions": here.versions | {name: metadata.version(name) for name in extra},
    }


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
