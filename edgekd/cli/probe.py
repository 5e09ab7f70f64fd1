"""`edgekd probe`: a kit that measures another device, and the profile made of what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import json_option, resolve_profile, store_of, store_option
from edgekd.errors import UsageError, require
from edgekd.settings.profile import Profile
from edgekd.settings.target import planned_precisions


@click.group(name="probe")
def command() -> None:
    """Measure a device that is elsewhere.

    `edgekd probe make plan-kit.zip` here, `python probe.py` there, `edgekd probe add device.json` here.
    """


@command.command(name="make")
@click.argument("kit", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--teacher", help="The teacher to plan for.  [default: BERT-base and MiniLM-L6]")
@click.option("--profile", default="cpu", show_default=True, help="Threads, precisions and batch size to measure.")
@click.option("--length", "lengths", type=int, multiple=True, help="Tokens a text; repeatable.  [default: 16 to 128]")
@store_option
@json_option
def make(kit: Path, **flags: Any) -> None:
    """Write KIT, a zip that measures a device with numpy and onnxruntime alone."""
    profile = resolve_profile(flags["profile"], {"cache_dir": flags["cache_dir"]})
    require("onnx", "cpu", "write the kit's graphs")
    require("onnxruntime", "cpu", "quantise the kit's graphs")
    from edgekd.latency.targets.build import build_target
    from edgekd.plan.space import widths_of
    from edgekd.remote.probe import LENGTHS, STANDARD, make_plan_kit

    console = error_console()
    teachers = STANDARD if flags["teacher"] is None else [_shape_of(flags["teacher"])]
    precisions = planned_precisions(profile.target)
    longest = min(teacher.positions for teacher in teachers)
    size = make_plan_kit(
        kit,
        teachers,
        [widths_of(teacher, profile.search.widths) for teacher in teachers],
        precisions,
        session=build_target(profile.target).session_spec(),
        lengths=_lengths(flags["lengths"], profile) or [length for length in LENGTHS if length <= longest],
        batch_size=profile.workload.batch_size,
        options=profile.export.graph,
        progress=ConsoleProgress(console),
    )
    console.print(f"{kit} written, {size / 1e6:.1f} MB: unpack it on the device, and there: python probe.py")
    if flags["as_json"]:
        click.echo(json.dumps({"kit": str(kit), "bytes": size}))


@command.command(name="add")
@click.argument("device", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the device, and of its profile.  [default: from its CPU]")
@store_option
@json_option
def add(device: Path, name: str | None, cache_dir: Path | None, as_json: bool) -> None:
    """Keep DEVICE, a device.json that a kit wrote, as a profile that `plan` and `compress` take."""
    from edgekd.remote.devices import add_device, find_probe

    store, console = store_of(cache_dir), error_console()
    profile = add_device(store, device, name)
    probe = find_probe(store, profile.name)
    assert probe is not None
    lengths = ", ".join(map(str, probe.lengths))
    console.print(f"{profile.name}: {profile.description} {len(probe.graphs)} graphs, {lengths} tokens a text.")
    console.print(f"use it: edgekd compress --profile {profile.name} ...")
    if as_json:
        click.echo(json.dumps({"name": profile.name, "profile": profile.model_dump(mode="json")}))


def _shape_of(teacher: str) -> Any:
    require("torch", "cpu", "read a teacher")
    from edgekd.models.teacher import load_teacher

    loaded = load_teacher(teacher)
    if loaded.hosted is None:
        kind = loaded.model.config.model_type
        raise UsageError(f"--teacher {teacher}: no student can be cut out of a {kind} teacher, so nothing to plan")
    return loaded.hosted[0]


def _lengths(given: tuple[int, ...], profile: Profile) -> list[int]:
    if any(length < 4 for length in given):
        raise UsageError(f"--length {min(given)}: too short for any text (at least 4)")
    asked = profile.workload.max_length
    return sorted(set(given)) or ([] if asked == "auto" else [asked])
