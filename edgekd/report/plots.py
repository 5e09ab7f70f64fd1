"""The report's figures as inline SVG whose colours are the page's CSS variables.

matplotlib draws with the placeholder colours of `COLOURS`; `_themed` then turns each into `var(--...)`, so that one
drawing serves light and dark pages. Text stays text. Nothing here touches pyplot.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from edgekd.records.plan import Candidate
from edgekd.records.result import Percentile, Result, Timing
from edgekd.records.training import Curve
from edgekd.report import wording
from edgekd.report.markup import Html, tag

# Placeholders that nothing else draws, by the CSS variable each becomes.
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "paper": "#040404",
    "accent": "#050505",
    "budget": "#060606",
    "second": "#070707",
    "third": "#080808",
}
INK, MUTED, LINE, PAPER, ACCENT, BUDGET, SECOND, THIRD = COLOURS.values()
WIDE, NARROW = 9.6, 4.2
_DASHES = ("-", "--", ":", "-.")
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
Draw = Callable[[Figure], None]


def latency(result: Result) -> Html | None:
    """The measured distributions against the budget, or None without samples."""
    timings = [(name, timing) for name, timing in result.latency.timings.items() if timing.samples_ms]
    if not timings:
        return None
    timings.sort(key=lambda pair: pair[0] != result.latency.judge)
    ends = wording.latency_axis(result)

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(timings), 1, sharex=True, squeeze=False)[:, 0]
        for i, (axes, (name, timing)) in enumerate(zip(rows, timings, strict=True)):
            _distribution(axes, result, timing, ends, judged=name == result.latency.judge, first=i == 0)
            # On the side where the budget's label is not.
            side = "left" if result.budget_ms > sum(ends) / 2 else "right"
            axes.set_title(f"{name}: {timing.texts}", loc=side, fontsize=10, color=MUTED)
        rows[-1].set_xlabel("end-to-end latency of one call, ms")

    told = f"Histogram of measured latency against the budget of {wording.limit_ms(result)}"
    return _responsive("latency", told, draw, height=0.9 + 1.6 * len(timings))


def quality(result: Result) -> Html | None:
    """Scores of the contenders with their intervals, or None with fewer than two."""
    rows = wording.quality_rows(result)
    if len(rows) < 2:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, row in enumerate(rows):
            colour = ACCENT if row.shipped else INK
            if row.interval is not None:
                upper = row.score if row.interval[1] is None else row.interval[1]
                axes.plot([row.interval[0], upper], [i, i], color=colour, lw=2, alpha=0.55, solid_capstyle="butt")
            axes.plot(row.score, i, "D" if row.shipped else "o", color=colour, ms=8 if row.shipped else 6)
            axes.annotate(
                wording.percent(row.score), (row.score, i), (0, 8), textcoords="offset points",
                ha="center", fontsize=9, color=colour, bbox={"fc": PAPER, "ec": "none", "pad": 0.3},
            )  # fmt: skip
        teacher = result.row("teacher")
        if teacher is not None:
            axes.axvline(teacher.score, color=MUTED, lw=0.8, ls=(0, (2, 3)), zorder=0)
        narrow = figure.get_figwidth() < WIDE
        names = [_short(row.name) if narrow else row.name for row in rows]
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.xaxis.set_major_formatter(_as_percent)
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8, steps=[1, 2, 5, 10]))
        axes.grid(axis="x")
        axes.margins(x=0.08)
        axes.set_xlabel(f"{result.data.metric} on test")

    scores = ", ".join(f"{row.name} {wording.percent(row.score)}" for row in rows)
    return _responsive("quality", f"Scores on test: {scores}", draw, height=0.75 + 0.38 * len(rows))


def frontier(result: Result) -> Html | None:
    """Predicted latency against what is kept of the teacher, or None without candidates."""
    known = [c for c in result.candidates if math.isfinite(_planned_ms(c))]
    if not known:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for precision, marker, colour in _precisions(known):
            _cloud(axes, [c for c in known if c.precision == precision], marker, colour)
        _budget_line(axes, result)
        if result.plan is not None and result.plan.limit_ms < result.budget_ms:
            axes.axvline(result.plan.limit_ms, color=BUDGET, lw=1.2, ls=(0, (4, 3)), label="limit of the plan")
        chosen = result.chosen
        if chosen is not None and chosen in known:
            axes.plot(_planned_ms(chosen), chosen.kept, "o", mfc="none", mec=INK, mew=1.4, ms=13)
            axes.annotate(
                "chosen", (_planned_ms(chosen), chosen.kept), (-11, 6), textcoords="offset points",
                ha="right", color=INK, fontweight="bold",
            )  # fmt: skip
        times = [_planned_ms(c) for c in known]
        if max(times) > 12 * min(times):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(_as_percent)
        axes.grid(axis="y")
        axes.set_xlabel(f"predicted {wording.quantile(result.percentile)}, ms")
        axes.set_ylabel("kept of the teacher’s importance")
        columns = 4 if figure.get_figwidth() == WIDE else 2
        figure.legend(loc="outside lower center", ncols=columns, handletextpad=0.2, columnspacing=1.6)

    told = "Candidates by predicted latency and by the share of the teacher’s importance they keep"
    return _responsive("frontier", told, draw, height=3.5)


def likeness(result: Result) -> Html | None:
    """How like the target the chosen generic texts and the pool are, or None without generic texts."""
    generic = None if result.transfer is None else result.transfer.generic
    if generic is None:
        return None

    def draw(figure: Figure) -> None:
        narrow = figure.get_figwidth() < WIDE
        shape = (len(generic.likeness), 1) if narrow else (1, len(generic.likeness))
        for axes, found in zip(figure.subplots(*shape, squeeze=False).flat, generic.likeness, strict=True):
            for counts, name, colour in ((found.pool, "pool", MUTED), (found.chosen, "chosen", ACCENT)):
                share = [n / max(1, sum(counts)) for n in counts]
                axes.stairs(share, found.edges, fill=True, color=colour, alpha=0.55, label=name)
            axes.set_yticks([])
            axes.set_title(f"likeness to your text by {found.name}", loc="left", fontsize=10)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.legend(loc="upper left")

    told = "Histograms of the likeness to the target of chosen generic texts and of the pool"
    return _responsive("likeness", told, draw, height=2.2, tall=2.0 * len(generic.likeness))


def training(result: Result) -> Html | None:
    """Training loss and validation score of every run, or None without curves."""
    curves = [curve for curve in result.training if curve.points]
    if not curves:
        return None
    panels: list[tuple[str, str]] = [("loss", "training loss"), ("score", result.data.metric)]
    drawn = [(key, title) for key, title in panels if any(_series(curve, key)[0] for curve in curves)]

    def draw(figure: Figure) -> None:
        narrow = figure.get_figwidth() < WIDE
        shape = (len(drawn), 1) if narrow else (1, len(drawn))
        for axes, (key, title) in zip(figure.subplots(*shape, squeeze=False).flat, drawn, strict=True):
            for curve, colour, dash in zip(curves, _cycle(len(curves)), _dashes(len(curves)), strict=True):
                marker = "o" if len(curve.points) <= 30 else ""
                axes.plot(*_series(curve, key), dash, marker=marker, color=colour, lw=1.6, ms=3.5, label=curve.name)
            axes.set_title(title if key == "loss" else f"{title} on validation", loc="left", fontsize=10)
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_xlabel("epoch")
            if key == "validation":
                axes.yaxis.set_major_formatter(_as_percent)
        axes.legend(loc="lower right")

    return _responsive("training", "Training curves", draw, height=2.9, tall=2.6 * len(drawn)) if drawn else None


def _distribution(
    axes: Axes, result: Result, timing: Timing, ends: tuple[float, float], judged: bool, first: bool
) -> None:
    """One histogram with its percentiles; the judged one carries the interval's band."""
    colour = ACCENT if judged else MUTED
    axes.hist(timing.samples_ms, bins=70, range=ends, color=colour, alpha=0.75 if judged else 0.5)
    axes.set_yticks([])
    axes.set_xlim(*ends)
    axes.margins(y=0.0)
    peak = axes.get_ylim()[1]
    axes.set_ylim(0, peak * 2.0)
    found = timing.at(result.percentile)
    _budget_line(axes, result, labelled=first)
    shown = sorted(timing.percentiles, key=lambda p: p.q)
    for level, point in enumerate(shown):
        height = peak * (1.2 + 0.78 * level / max(1, len(shown)))
        _percentile_mark(axes, point, height, strong=point is found)
        if judged and point is found and found.interval is not None:
            upper = ends[1] if found.interval[1] is None else found.interval[1]
            axes.fill_between([found.interval[0], upper], height, color=colour, alpha=0.25, lw=0)


def _percentile_mark(axes: Axes, point: Percentile, height: float, strong: bool) -> None:
    """A line up to the percentile's own height, so that labels of close percentiles cannot meet."""
    axes.plot([point.value_ms] * 2, [0, height], color=INK, lw=1.3 if strong else 0.8)
    axes.annotate(
        f"{wording.quantile(point.q)} {wording.number(point.value_ms)}", (point.value_ms, height), (-4, 1),
        textcoords="offset points", ha="right", va="top", color=INK, weight="bold" if strong else "normal",
    )  # fmt: skip


def _budget_line(axes: Axes, result: Result, labelled: bool = True) -> None:
    axes.axvline(result.budget_ms, color=BUDGET, lw=1.6)
    if labelled:
        text, place = f"budget {wording.limit_ms(result)}", axes.get_xaxis_transform()
        axes.text(result.budget_ms, 1.03, text, transform=place, color=BUDGET, ha="center", va="bottom")


def _precisions(candidates: Sequence[Candidate]) -> list[tuple[str, str, str]]:
    """Precision, marker and colour, in a fixed order so that a colour always means the same."""
    known = {"int8": ("o", ACCENT), "fp32": ("s", SECOND), "fp16": ("^", THIRD)}
    found = sorted({c.precision for c in candidates}, key=lambda p: (p not in known, p))
    return [(p, *known.get(p, ("D", MUTED))) for p in found]


def _planned_ms(candidate: Candidate) -> float:
    """What the plan's search went by: the prediction, where there was one."""
    return candidate.best_known_ms if candidate.predicted_ms is None else candidate.predicted_ms


def _cloud(axes: Axes, group: Sequence[Candidate], marker: str, colour: str) -> None:
    """Candidates of one precision: filled where they fit, hollow where not; a line leads to what was measured."""
    for fits in (True, False):
        points = [c for c in group if c.fits is fits]
        if points:
            axes.scatter(
                [_planned_ms(c) for c in points], [c.kept for c in points],
                marker=marker, s=34, linewidths=1.1, edgecolors=colour,
                facecolors=colour if fits else "none", alpha=0.9 if fits else 0.7,
                label=f"{wording.precision_name(group[0].precision)}, {'fits' if fits else 'too slow'}",
            )  # fmt: skip
    for c in group:
        if c.measured_ms is not None and c.predicted_ms is not None:
            axes.plot([c.predicted_ms, c.measured_ms], [c.kept] * 2, color=INK, lw=1.0, zorder=3)
            axes.plot(c.measured_ms, c.kept, "|", color=INK, ms=9, mew=1.4, zorder=3)


def _as_percent(value: float, _: float) -> str:
    return f"{100 * value:.4g}%"


def _series(curve: Curve, key: str) -> tuple[list[float], list[float]]:
    pairs = [(point.epoch, getattr(point, key)) for point in curve.points if getattr(point, key) is not None]
    return [at for at, _ in pairs], [value for _, value in pairs]


def _cycle(n: int) -> list[str]:
    colours = (ACCENT, SECOND, THIRD, MUTED)
    return [colours[i % len(colours)] for i in range(n)]


def _dashes(n: int) -> list[str]:
    return [_DASHES[i % len(_DASHES)] for i in range(n)]


def _short(name: str) -> str:
    return {
        "teacher outputs, as given": "outputs",
        "student, fine-tuned without distillation": "no distillation",
        "student after slicing, untrained": "sliced, untrained",
        "student from random weights, untrained": "random, untrained",
        "student from a checkpoint, untrained": "checkpoint, untrained",
        "TF-IDF + logistic regression": "TF-IDF",
    }.get(name, name)


def _responsive(name: str, told: str, draw: Draw, height: float, tall: float | None = None) -> Html:
    """The figure twice, for a wide and a narrow page; CSS shows one."""
    wide = _svg(f"{name}-wide", draw, (WIDE, height))
    narrow = _svg(f"{name}-narrow", draw, (NARROW, tall or height))
    return tag(
        "figure",
        tag("div", wide, class_="wide", role="img", aria_label=told),
        tag("div", narrow, class_="narrow", role="img", aria_label=told),
        id=f"figure-{name}",
    )


def _svg(salt: str, draw: Draw, size: tuple[float, float]) -> Html:
    """Draw on a fresh figure; `salt` keeps the ids of two figures of one page apart."""
    settings: Any = {**_SETTINGS, "svg.hashsalt": salt}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # The browser has the glyphs that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _themed(buffer.getvalue(), salt)


def _themed(svg: str, salt: str) -> Html:
    """Strip the file's prologue, size and fonts, and put CSS variables for the placeholders."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", svg)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m.group(0) if m.group(1) in used else "", svg)
    return Html(re.sub(r"\n\s*", "\n", svg))
