"""`edgekd export`: write a student as ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekd import api
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import (
    data_options,
    json_option,
    named,
    new_folder,
    profile_options,
    request_of,
    store_option,
)
from edgekd.errors import UsageError, require


@click.command(name="export")
@click.option("--student", help="Folder that `edgekd distill` wrote.")
@click.option("--teacher", help="Its teacher.")
@data_options
@profile_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the ONNX files.")
@click.option(
    "--choose-graph", flag_value="measured", help="Measure the forms of the graph here, and keep the fastest."
)
@click.option("--overwrite", is_flag=True, help="Replace the folder --out.")
@click.option("--bundle", type=click.Path(path_type=Path), help="A finished bundle, for --triton.")
@click.option("--triton", type=click.Path(path_type=Path), help="Write a Triton model repository with --bundle in it.")
@store_option
@json_option
def command(**flags: Any) -> None:
    """Write a student as ONNX, FP32 and INT8; INT8 is refused where it costs too much on validation.

    With --triton and --bundle alone: write a finished bundle as a model repository of Triton's onnxruntime backend.
    """
    if flags["triton"] is not None or flags["bundle"] is not None:
        _triton(flags)
        return
    request = request_of(flags, budget=False)
    folder = Path(named("--student", flags["student"]))
    out = new_folder(flags)
    require("torch", "cpu", "export a student")
    require("onnxruntime", "cpu", "prove the export")
    console = error_console()
    found = api.export(request, folder, out, cache_dir=flags["cache_dir"], progress=ConsoleProgress(console))
    console.print(f"ONNX written to {out}: largest logit gap to PyTorch {found.parity.max_abs_gap:.1e}")
    if (int8 := found.quantisation) is not None:
        console.print(f"INT8 {'may' if int8.kept else 'must not'} be deployed: {int8.reason}")
    for form in found.forms:
        if form.chosen:
            console.print(f"Fastest form of the graph, {form.precision.upper()}: {form.name}")
    if flags["as_json"]:
        click.echo(json.dumps({"out": str(out), **found.model_dump(mode="json")}))


def _triton(flags: dict[str, Any]) -> None:
    if flags["bundle"] is None:
        raise UsageError("--triton needs --bundle: name the finished bundle")
    if flags["triton"] is None:
        raise UsageError("--bundle goes with --triton: name the model repository's folder")
    for name in ("student", "teacher", "data", "out"):
        if flags[name] is not None:
            raise UsageError(f"--triton writes a finished bundle: leave out --{name}")
    for name in ("overwrite", "choose_graph"):
        if flags[name]:
            raise UsageError(f"--{name.replace('_', '-')} goes without --triton: it replaces and measures nothing")
    if flags["triton"].is_file():
        raise UsageError(f"--triton {flags['triton']} is a file: name a folder")
    require("onnx", "cpu", "read the bundle's graph")
    from edgekd.export.deploy import triton_repository

    model = triton_repository(flags["bundle"], flags["triton"])
    error_console().print(f"Triton model written to {model}; run: tritonserver --model-repository {flags['triton']}")
    if flags["as_json"]:
        click.echo(json.dumps({"model": str(model)}))
