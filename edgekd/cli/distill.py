"""`edgekd distill`: train the student of a plan, or a general encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekd import api
from edgekd.cli import agnostic
from edgekd.cli.agnostic import agnostic_options
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import (
    assistants_option,
    data_options,
    json_option,
    named,
    new_folder,
    profile_options,
    request_of,
    store_option,
)
from edgekd.errors import require


@click.command(name="distill")
@click.option("--teacher", help="Folder or hub id of a fine-tuned Transformer encoder.")
@data_options
@profile_options
@click.option("--plan", help="The plan.json that says which student.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the student.")
@click.option("--overwrite", is_flag=True, help="Replace the folder --out.")
@agnostic_options
@assistants_option
@store_option
@json_option
def command(**flags: Any) -> None:
    """Train the student of a plan: cut out of the teacher, then taught by it.

    With --task-agnostic: a general encoder from any larger one and raw text, which `teach` takes.
    """
    agnostic.check_flags(agnostic=flags["task_agnostic"])
    if flags["task_agnostic"]:
        agnostic.run(flags)
        return
    request = request_of(flags, budget=False)
    out = new_folder(flags)
    require("torch", "cpu", "train a student")
    from edgekd.records.plan import read_plan

    console, plan = error_console(), read_plan(Path(named("--plan", flags["plan"])))
    student = api.distill(request, plan, out, cache_dir=flags["cache_dir"], progress=ConsoleProgress(console))
    before, after = 100 * (student.untrained or 0.0), 100 * student.validation
    console.print(f"student written to {out}: {after:.1f}% on validation ({before:.1f}% before training)")
    if flags["as_json"]:
        click.echo(json.dumps({"out": str(out), **student.model_dump(mode="json")}))
