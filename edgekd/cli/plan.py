"""`edgekd plan`: choose the student for a budget, and show what else there was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edgekd import api
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import data_options, json_option, profile_options, request_of, store_option
from edgekd.errors import ExitCode, require
from edgekd.records.plan import Plan
from edgekd.store import check_file, write_text

# Rows of the frontier that a screen takes.
_SHOWN = 15


@click.command(name="plan")
@click.option("--teacher", help="Folder or hub id of a fine-tuned Transformer encoder.")
@data_options
@profile_options
@click.option("--always-distill", is_flag=True, help="Plan a student even where the unchanged teacher fits.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("plan.json"), show_default=True)
@store_option
@json_option
def command(**flags: Any) -> int:
    """Choose the student's shape and precision for a budget on this machine, and write the plan.

    Exit code 1 if nothing fits; `compress --plan` pins the plan.
    """
    request = request_of(flags, budget=True)
    out: Path = flags["out"]
    check_file(out)
    require("torch", "cpu", "plan a student")
    console = error_console()
    plan = api.plan(request, cache_dir=flags["cache_dir"], progress=ConsoleProgress(console))
    write_text(out, plan.model_dump_json(indent=1) + "\n")
    console.print(_table(plan))
    console.print(f"plan: {plan.said()}", soft_wrap=True, markup=False)
    console.print(f"plan written to {out}")
    if flags["as_json"]:
        click.echo(plan.model_dump_json())
    return int(ExitCode.MET if plan.chosen is not None else ExitCode.MISSED)


def _table(plan: Plan) -> Table:
    title = f"p{plan.percentile:g} within {plan.budget_ms:g} ms, planned at {plan.limit_ms:.2f} ms"
    table = Table(title=f"{title}, {plan.max_length} tokens", title_justify="left")
    for name in ("model", "kept", "predicted ms", "measured ms", ""):
        table.add_column(name, justify="left" if name in ("model", "") else "right")
    ordered = sorted(range(len(plan.candidates)), key=lambda i: -plan.candidates[i].kept)
    for i in ordered[:_SHOWN]:
        candidate = plan.candidates[i]
        mark = "chosen" if i == plan.chosen else candidate.note
        predicted = "" if candidate.predicted_ms is None else f"{candidate.predicted_ms:.2f}"
        measured = "" if candidate.measured_ms is None else f"{candidate.measured_ms:.2f}"
        table.add_row(candidate.describe(), f"{100 * candidate.kept:.0f}%", predicted, measured, mark)
    return table
