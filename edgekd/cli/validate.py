"""`edgekd validate`: is a bundle whole, does it answer as it did, is it still fast enough?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekd import api
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import clock_option, json_option, store_option
from edgekd.errors import UsageError, require
from edgekd.store import check_file


@click.command(name="validate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--only", type=click.Choice(["answers", "latency"]), help="Check only these; the files always.")
@click.option(
    "--max-regression", type=float,
    help="On another machine: how many times slower beside its anchor the bundle may be.  [default: 1.15]",
)  # fmt: skip
@click.option("--judge-here", is_flag=True, help="Judge the budget itself on this machine, whatever it is.")
@click.option("--latency-ms", type=float, help="Another budget than the bundle's; implies --judge-here.")
@click.option("--percentile", type=float, help="Another than the bundle's: 95, not 0.95; implies --judge-here.")
@clock_option
@click.option("--measured", type=click.Path(path_type=Path), help="Judge what verify-kit.zip wrote on its device.")
@click.option(
    "--markdown", type=click.Path(path_type=Path), help="Add the outcome to this file, as a table for people."
)
@store_option
@json_option
def command(bundle: Path, markdown: Path | None, **flags: Any) -> int:
    """Check BUNDLE on any host: its files, its answers to stored texts, and its latency.

    On the machine that it was made on, latency is judged by the budget. On another one it is compared with a small
    anchor graph that the bundle brings. Nothing is answered from an earlier run: every call measures.
    """
    require("onnxruntime", "runtime", "run a bundle")
    from edgekd.report.validation import broken_bundle, validation_table
    from edgekd.report.wording import BADGE, MARK

    if markdown is not None:
        check_file(markdown)

    console, as_json = error_console(), flags.pop("as_json")
    try:
        found = api.validate(bundle, progress=ConsoleProgress(console), **flags)
    except UsageError as error:
        # A pull request is told of a bundle that is broken, too.
        if markdown is not None:
            _append(markdown, broken_bundle(bundle.resolve().name, str(error)))
        raise
    for change in found.changes:
        _say(console, f"changed: {change.what}: {change.then or 'none'} -> {change.now or 'none'}")
    for note in found.notes:
        _say(console, f"note: {note}")
    for criterion in found.criteria:
        mark = f"{MARK[criterion.outcome]} {BADGE[criterion.outcome].lower()}"
        _say(console, f"{mark}: {criterion.name}: {criterion.explanation}")
    _say(console, f"{found.outcome}: {bundle}")
    if markdown is not None:
        _append(markdown, validation_table(found, bundle.resolve().name))
    if as_json:
        click.echo(found.model_dump_json())
    return found.exit_code


def _append(markdown: Path, text: str) -> None:
    # Added, not replaced: a pipeline's summary is one file for all its steps.
    with markdown.open("a", encoding="utf-8") as file:
        file.write(text)


def _say(console: Any, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)
