"""The terminal's summary: one screen of 24 lines by 100 columns, unless several reasons are long."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekd.records.result import Outcome, Result
from edgekd.report import wording

_STYLES: dict[Outcome, str] = {
    "met": "bold white on dark_green",
    "missed": "bold white on red",
    "inconclusive": "bold black on yellow",
    "unmeasured": "bold white on grey37",
}
_MOST_REASONS = 3


def summary(result: Result, folder: str | None = None) -> RenderableType:
    """The run on one screen.

    Args:
        result: What to tell; parts that it lacks are left out.
        folder: Where the bundle is, to end with; None leaves it out.

    Returns:
        Something that a rich console prints.
    """
    parts: list[RenderableType] = [_verdict(result)]
    if result.demo:
        parts.append(Text(f"Demo: {wording.DEMO_WARNING}", "yellow"))
    if reasons := wording.reasons(result)[:_MOST_REASONS]:
        parts.append(_reasons(reasons))
    parts.append(_facts(result, folder))
    if result.quality:
        parts += [Text(), _quality(result)]
    return Group(*parts)


def _verdict(result: Result) -> Text:
    badge = f" {wording.MARK[result.outcome]} {wording.BADGE[result.outcome].upper()} "
    text = Text.assemble((badge, _STYLES[result.outcome]), " ", (wording.headline(result), "bold"))
    text.append("\n")
    return text


def _reasons(reasons: Sequence[str]) -> Table:
    """Why the verdict is not "met", as many lines each as it takes: they end in what the user is to do."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for reason in reasons:
        grid.add_row("  -", Text(reason))
    return grid


def _facts(result: Result, folder: str | None) -> Table:
    """Names and values, one line each; the note, which advises, takes what it needs."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, min_width=8)
    grid.add_column()
    pairs = [
        ("Budget", f"{wording.limit_ms(result)} at {wording.quantile(result.percentile)}, {_judged_on(result)}"),
        ("Measured", _measured(result)),
        ("Clock", wording.clock_line(result)),
        ("Machine", wording.machine_line(result)),
        ("Model", _model(result)),
        ("Tries", _tries(result)),
        ("Note", " ".join(wording.notes(result))),
        ("Files", f"{folder}: {result.model_file}, report.html, verdict.json" if folder else ""),
    ]
    for name, value in pairs:
        if value:
            short = name != "Note"
            grid.add_row(name, Text(value, no_wrap=short, overflow="ellipsis" if short else "fold"))
    return grid


def _judged_on(result: Result) -> str:
    timing = result.latency.judged
    return f"judged on {result.latency.judge} texts" + (f" ({timing.texts})" if timing is not None else "")


def _measured(result: Result) -> str:
    shown = []
    for name, timing in sorted(result.latency.timings.items(), key=lambda pair: pair[0] != result.latency.judge):
        found = timing.at(result.percentile)
        if found is not None:
            ends = wording.interval(found.interval)
            shown.append(f"{name} {wording.ms(found.value_ms)}" + (f" ({ends})" if ends else ""))
    return "; ".join(shown)


def _model(result: Result) -> str:
    if result.chosen is None and result.shipped is None:
        return ""
    gains = []
    smaller = wording.shrinkage(result)
    if result.speedup is not None:
        gains.append(f"{result.speedup.value:.1f}x faster")
    if smaller is not None:
        gains.append(f"{smaller:.1f}x smaller")
    than = f"; {', '.join(gains)} than the FP32 teacher" if gains else ""
    return f"{wording.pitch(result)}{than}"


def _tries(result: Result) -> str:
    if len(result.tries) < 2:
        return ""
    last = result.tries[-1]
    return f"{len(result.tries)}; the last: {last.what}, {last.action}"


def _quality(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    table.add_column("Test (* this bundle)" if result.shipped else "Test")
    # The longest metric takes two lines of the head rather than the names' room.
    heads = wording.quality_heads(result)
    # On a narrow terminal the names give way, never the figures.
    for head, width in zip(heads, (8, 12, 7, 7, 4), strict=True):
        table.add_column(head.replace("with ", "with\n"), justify="right", no_wrap=True, min_width=width)
    for row in wording.quality_rows(result):
        name, style = (f"{row.name} *", "bold") if row.shipped else (row.name, "")
        table.add_row(Text(name), *wording.quality_cells(row), style=style)
    return table
