"""`edgekd compress --family`: several budgets, a bundle each."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from edgekd.cli.console import ConsoleProgress
from edgekd.cli.options import store_of
from edgekd.cli.tracking import log_runs
from edgekd.errors import UsageError
from edgekd.records.result import EXIT_CODES, overall
from edgekd.records.verdict import verdict_json
from edgekd.report import wording
from edgekd.settings.request import Request

if TYPE_CHECKING:
    from edgekd.pipeline.family import Family


def budgets_of(flags: dict[str, Any]) -> tuple[float, ...]:
    """The budgets of --family in milliseconds, ascending; none where it was not given.

    Raises:
        UsageError: It goes with another flag, or its value is none.
    """
    text = flags["family"]
    if text is None:
        return ()
    for flag in ("latency_ms", "plan", "config"):
        if flags[flag] is not None:
            raise UsageError(f"--family goes without --{flag.replace('_', '-')}: it plans for every budget itself")
    return _parse(text)


def run(flags: dict[str, Any], request: Request, budgets: tuple[float, ...], console: Console) -> int:
    """Make the family; the exit code is that of its worst member."""
    from edgekd.pipeline.family import compress_family
    from edgekd.session import Session

    session = Session.open(store_of(flags["cache_dir"]), ConsoleProgress(console))
    family, results = compress_family(session, request, budgets, flags["out"], overwrite=flags["overwrite"])
    console.print(_table(family))
    console.print(f"bundles and family.json are in {flags['out']}")
    if flags["as_json"]:
        verdicts = {m.folder: verdict_json(r) for m, r in zip(family.members, results, strict=True)}
        click.echo(json.dumps({"family": family.model_dump(mode="json"), "verdicts": verdicts}))
    log_runs(flags, [(r, flags["out"] / m.folder) for m, r in zip(family.members, results, strict=True)], console)
    return int(EXIT_CODES[overall([criterion for result in results for criterion in result.criteria])])


def _parse(text: str) -> tuple[float, ...]:
    """Budgets such as "5,10,20" or "5ms,10ms"."""
    found = []
    for part in text.split(","):
        number = re.fullmatch(r"\s*([0-9.]+)\s*(ms)?\s*", part)
        try:
            value = float(number[1]) if number is not None else math.nan
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UsageError(f"--family {text}: {part.strip()!r} is no budget; write milliseconds, such as 5,10,20")
        found.append(value)
    if len(set(found)) < len(found):
        raise UsageError(f"--family {text}: a budget is there twice")
    if len(found) < 2:
        raise UsageError(f"--family {text}: one budget is no family; give it as --latency-ms")
    return tuple(sorted(found))


def _table(family: Family) -> Table:
    """Accuracy against latency of all members."""
    table = Table(title="The family, the tightest budget first", title_justify="left")
    for name in ("budget", "model", "measured", family.metric, "kept", "verdict", ""):
        table.add_column(name, justify="left" if name in ("model", "verdict", "") else "right")
    for member in family.members:
        table.add_row(
            f"{member.budget_ms:g} ms",
            f"{member.shape}, {wording.precision_name(member.precision)}",
            wording.ms(member.latency_ms),
            wording.percent(member.score),
            wording.percent(member.kept),
            wording.BADGE[member.outcome].lower(),
            "" if member.same_as is None else f"the model of {member.same_as:g} ms",
        )
    return table
