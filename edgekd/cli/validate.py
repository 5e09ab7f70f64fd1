"""`edgekd validate`: is a bundle whole, does it answer as it did, is it still fast enough?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import clock_option, json_option, store_of, store_option
from edgekd.errors import UsageError, require


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
@store_option
@json_option
def command(bundle: Path, **flags: Any) -> int:
    """Check BUNDLE on any host: its files, its answers to stored texts, and its latency.

    On the machine that it was made on, latency is judged by the budget. On another one it is compared with a small
    anchor graph that the bundle brings. Nothing is answered from an earlier run: every call measures.
    """
    if not bundle.is_dir():
        hint = "name the folder that it is in" if bundle.is_file() else "no such bundle"
        raise UsageError(f"{bundle}: {hint}")
    require("onnxruntime", "runtime", "run a bundle")
    from edgekd.latency.speed import SpeedLog
    from edgekd.proof.recheck import Asked, recheck
    from edgekd.report.wording import BADGE, MARK

    console = error_console()
    asked = Asked(
        only=flags["only"],
        max_regression=flags["max_regression"],
        judge_here=flags["judge_here"],
        latency_ms=flags["latency_ms"],
        percentile=flags["percentile"],
        clock=flags["clock"],
        log=SpeedLog.of_this_machine(store_of(flags["cache_dir"]).speed_folder),
    )
    if flags["measured"] is not None:
        from edgekd.remote.verify import judge_measured

        found = judge_measured(bundle, flags["measured"], asked)
    else:
        found = recheck(bundle, asked, ConsoleProgress(console))
    for change in found.changes:
        _say(console, f"changed: {change.what}: {change.then or 'none'} -> {change.now or 'none'}")
    for note in found.notes:
        _say(console, f"note: {note}")
    for criterion in found.criteria:
        mark = f"{MARK[criterion.outcome]} {BADGE[criterion.outcome].lower()}"
        _say(console, f"{mark}: {criterion.name}: {criterion.explanation}")
    _say(console, f"{found.outcome}: {bundle}")
    if flags["as_json"]:
        click.echo(found.model_dump_json())
    return found.exit_code


def _say(console: Any, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)
