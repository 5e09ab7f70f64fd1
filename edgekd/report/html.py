"""report.html: one file that opens offline, without a script, and tells the whole run."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml

from edgekd.errors import require
from edgekd.records.base import Interval
from edgekd.records.plan import Candidate
from edgekd.records.result import Criterion, Outcome, Percentile, Result, Timing
from edgekd.report import wording
from edgekd.report.assistants_section import assistants
from edgekd.report.export_section import export_section
from edgekd.report.labels_section import calibration_section, outputs_section
from edgekd.report.markup import Html, Node, Section, bullets, contents, facts, fold, join, section, table, tag
from edgekd.report.transfer_section import transfer_section
from edgekd.store import write_text

_SHOWN_CANDIDATES = 8

# Its name in a bundle.
REPORT = "report.html"


def write_html(result: Result, path: Path) -> None:
    """Write the report as one self-contained HTML file.

    Args:
        result: What to tell; parts that it lacks are left out.
        path: Where; replaced if it is there.

    Raises:
        UnavailableError: matplotlib is not installed.
    """
    write_text(path, render(result))


def render(result: Result) -> str:
    """The report as one string of HTML; see `write_html`."""
    require("matplotlib", "cpu", "draw the report")
    from edgekd.report import plots

    style = (files("edgekd.report") / "report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{result.name}: {wording.BADGE[result.outcome].lower()} – EdgeKD report"),
        tag("style", Html(style)),
    )
    sections = [
        _criteria(result),
        _latency(result, plots.latency(result)),
        _quality(result, plots.quality(result)),
        outputs_section(result),
        calibration_section(result),
        _choice(result, plots.frontier(result)),
        transfer_section(result, plots.likeness(result)),
        _training(result, plots.training(result)),
        export_section(result),
        _data(result),
        _machine(result),
        _again(result),
    ]
    shown = [part for part in sections if part]
    body = tag("main", _verdict(result), contents(shown), *shown)
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", body), lang="en")


def _verdict(result: Result) -> Html:
    about = [wording.day(result.finished), result.data.task, result.data.name]
    top = tag(
        "div",
        tag("span", "EdgeKD report  ", tag("strong", result.name)),
        tag("span", " · ".join(part for part in about if part)),
        class_="top",
    )
    badges = [_badge(result.outcome), tag("span", "demo", class_="badge plain") if result.demo else None]
    reasons = wording.reasons(result)
    return tag(
        "header",
        top,
        tag("div", *badges),
        tag("h1", wording.headline(result)),
        tag("ul", *[tag("li", reason) for reason in reasons], class_="why") if reasons else None,
        tag("p", wording.DEMO_WARNING, class_="warning") if result.demo else None,
        _tiles(result),
    )


def _badge(outcome: Outcome) -> Html:
    return tag("span", f"{wording.MARK[outcome]} {wording.BADGE[outcome]}", class_=f"badge {outcome}")


def _tiles(result: Result) -> Html | None:
    """The four figures a reader takes away."""
    tiles: list[tuple[str, str, str]] = []
    found = wording.judged(result)
    if found is not None:
        share = found.value_ms / result.budget_ms
        aside = f"{share:.0%} of the {wording.limit_ms(result)} budget"
        tiles.append((f"Latency, {wording.quantile(found.q)}", wording.ms(found.value_ms), aside))
    shipped, teacher = result.shipped, result.row("teacher")
    if shipped is not None:
        # The teacher's agreement with itself tells nothing.
        told = teacher is not None and result.data.metric != "agreement with the teacher"
        aside = f"teacher {wording.percent(teacher.score)}" if teacher is not None and told else ""
        tiles.append((wording.metric(result), wording.percent(shipped.score), aside))
    if result.speedup is not None:
        ends = wording.interval(result.speedup.interval)
        tiles.append(("Speed-up", f"{result.speedup.value:.1f}×", f"{ends}, median, in turns with the FP32 teacher"))
    if shipped is not None and shipped.size_mb is not None:
        aside = f"teacher FP32 {wording.megabytes(teacher.size_mb)}" if teacher and teacher.size_mb else ""
        tiles.append(("Model file", wording.megabytes(shipped.size_mb), aside))
    shown = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", tag("span", value, class_="figure"), tag("span", aside, class_="aside")),
        )
        for name, value, aside in tiles
    ]
    return tag("dl", *shown, class_="tiles") if shown else None


def _criteria(result: Result) -> Section | None:
    rows = [_criterion(criterion) for criterion in result.criteria]
    heads = ("Criterion", "Limit", "Found", "Outcome")
    lead = "What was asked for and what was found. An outcome follows from the interval, not from the value alone."
    return section("Criteria", lead, table(heads, rows, numeric=(1, 2)))


def _criterion(criterion: Criterion) -> list[Node]:
    mark = f"{wording.MARK[criterion.outcome]} {wording.BADGE[criterion.outcome]}"
    why = tag("span", criterion.explanation, class_="below") if criterion.explanation else None
    return [
        join([criterion.name, why]),
        wording.limit(criterion),
        _with_interval(wording.quantity(criterion.value, criterion.unit), criterion.interval, criterion.unit),
        tag("span", mark, class_=f"outcome {criterion.outcome}"),
    ]


def _with_interval(value: str, ends: Interval | None, unit: str = "") -> Node:
    """The value, and below it its interval."""
    return value if ends is None else join([value, tag("span", wording.interval(ends, unit), class_="below")])


def _latency(result: Result, figure: Html | None) -> Section | None:
    latency = result.latency
    timings = latency.timings
    lead = (
        "Each call tokenises, runs the model and post-processes, in a process of its own. “Fixed” uses texts of the "
        f"greatest length, “replay” real texts at their own; the verdict rests on “{latency.judge}”. "
        f"{wording.clock_words(result)}"
    )
    band = f"The shaded band is the interval of the judged {wording.quantile(result.percentile)}.{_beyond(result)}"
    return section(
        "Latency against the budget",
        lead,
        figure,
        tag("p", band, class_="note") if figure else None,
        table(("Quantity", *timings), _timing_rows(list(timings.values())), numeric=range(1, 1 + len(timings)))
        if timings
        else None,
    )


def _beyond(result: Result) -> str:
    """How many calls the figure's axis leaves out; empty where it shows all."""
    timings = [timing for timing in result.latency.timings.values() if timing.samples_ms]
    end = wording.latency_axis(result)[1]
    share = max((sum(ms > end for ms in t.samples_ms) / len(t.samples_ms) for t in timings), default=0.0)
    slowest = max((t.samples_ms[-1] for t in timings), default=0.0)
    if not share:
        return ""
    beyond = f"{wording.percent(share)} of calls took longer, {wording.ms(slowest)} at most"
    return f" The axis ends at {wording.ms(end)}: {beyond}."


def _timing_rows(timings: list[Timing]) -> list[list[Node]]:
    """One row a quantity, one column a measurement."""
    rows: list[list[Node]] = [
        ["texts", *[t.texts for t in timings]],
        ["calls", *[f"{t.calls:,}" for t in timings]],
    ]
    for q in sorted({p.q for t in timings for p in t.percentiles}):
        rows.append([wording.quantile(q), *[_percentile(t.at(q)) for t in timings]])
    for clock in ("service", "response"):
        for q in sorted({p.q for t in timings for p in t.percentiles}):
            cells = [wording.ms(None if (p := t.at(q)) is None else getattr(p, f"{clock}_ms")) for t in timings]
            rows.append([f"{wording.quantile(q)} of {clock} time, as it was", *cells])
    for part in dict.fromkeys(part for t in timings for part in t.parts):
        rows.append([f"{part}, median", *[wording.ms(t.parts.get(part)) for t in timings]])
    others = [
        ("load", [wording.ms(t.load_ms) for t in timings]),
        ("first call", [wording.ms(t.first_call_ms) for t in timings]),
        ("peak memory", [wording.megabytes(t.peak_memory_mb) for t in timings]),
        ("share of the response time spent waiting", [wording.percent(t.waited_share) for t in timings]),
        ("speed while measured, of the usual", [wording.number(1 / t.slowdown) for t in timings]),
    ]
    return rows + [[name, *cells] for name, cells in others if set(cells) != {wording.NONE}]


def _percentile(point: Percentile | None) -> Node:
    return None if point is None else _with_interval(wording.ms(point.value_ms), point.interval)


def _quality(result: Result, figure: Html | None) -> Section | None:
    rows = wording.quality_rows(result)
    cells: list[list[Node]] = [
        [
            join([row.name, tag("span", " (shipped)", class_="soft") if row.shipped else None]),
            *wording.quality_cells(row),
        ]
        for row in rows
    ]
    heads = ("Model", *wording.quality_heads(result))
    marked = [i for i, row in enumerate(rows) if row.shipped]
    lead = f"{wording.metric(result)} on the test split, which no choice was made on."
    lead = " ".join([lead, *wording.notes(result)])
    return section("Quality", lead, figure, table(heads, cells, numeric=(1, 2, 3, 4, 5), marked=marked))


def _chosen_by_accuracy(result: Result) -> bool:
    profile = result.request.get("profile")
    search = profile.get("search") if isinstance(profile, dict) else None
    return isinstance(search, dict) and search.get("select") == "accuracy"


def _choice(result: Result, figure: Html | None) -> Section | None:
    measured = any(c.measured_ms is not None for c in result.candidates)
    said = (
        "“Kept” is the share of the importance of the teacher’s heads and neurons that the cut leaves, before any "
        "training: it ranks candidates of one teacher, and says little of accuracy, most of which training brings back "
        "(see Quality)."
    )
    said += " The bar beside a point marks what was measured." if measured else ""
    note = tag("p", said, class_="note") if result.candidates else None
    lead = (
        "Those that keep most of the teacher within the budget less headroom were compared by accuracy in short runs."
        if _chosen_by_accuracy(result)
        else "The candidate that keeps most of the teacher within the budget less headroom becomes the student."
    )
    return section(
        "How the student was chosen",
        lead,
        figure,
        note,
        *_candidates(result),
        *assistants(result),
        *_tries(result),
    )


def _candidates(result: Result) -> list[Html | None]:
    """The chosen one and the best of the others; the rest folded away."""
    ranked = sorted(result.candidates, key=lambda c: (c is not result.chosen, not c.fits, -c.kept))
    heads = ("Candidate", "Predicted, ms", "Measured, ms", "Kept", "Encoder", "Fits")
    rows = [_candidate(c, c is result.chosen) for c in ranked]
    marked = [i for i, c in enumerate(ranked) if c is result.chosen]
    numeric = (1, 2, 3, 4)
    rest = table(heads, rows[_SHOWN_CANDIDATES:], numeric)
    return [
        table(heads, rows[:_SHOWN_CANDIDATES], numeric, marked),
        fold(f"{len(rows) - _SHOWN_CANDIDATES} more candidates", rest),
    ]


def _candidate(c: Candidate, chosen: bool) -> list[Node]:
    parts = (c.kind, wording.precision_name(c.precision), c.note, "chosen" if chosen else "")
    return [
        join([c.shape_words, tag("span", ", ".join(part for part in parts if part), class_="below")]),
        None if c.predicted_ms is None else wording.number(c.predicted_ms),
        None if c.measured_ms is None else wording.number(c.measured_ms),
        wording.percent(c.kept),
        None if c.shape is None else wording.count(c.shape.encoder_parameters()),
        "yes" if c.fits else "no",
    ]


def _tries(result: Result) -> list[Html | None]:
    rows: list[list[Node]] = [
        [str(i), t.what, wording.ms(t.predicted_ms), wording.ms(t.measured_ms), t.action]
        for i, t in enumerate(result.tries, start=1)
    ]
    heads = ("Try", "What", "Planned", "Measured", "Then")
    return [tag("h3", "Tries"), table(heads, rows, numeric=(2, 3))] if rows else []


def _training(result: Result, figure: Html | None) -> Section | None:
    lead = "The weights kept are those of the best validation score."
    return section("Training", f"{result.origin} {lead}" if result.origin else lead, figure)


def _data(result: Result) -> Section | None:
    data, teacher = result.data, result.teacher
    rows = [(f"{split} rows", f"{n:,}") for split, n in data.rows.items()]
    about = facts([("task", data.task), ("data", data.name), ("labels", f"{data.labels:,}"), *rows])
    pairs: list[tuple[str, Node]] = [
        ("teacher", teacher.name),
        ("family", teacher.family),
        ("shape", teacher.shape),
        ("parameters", wording.count(teacher.parameters)),
        ("validation", None if teacher.validation is None else wording.percent(teacher.validation)),
        ("test", None if teacher.test is None else wording.percent(teacher.test)),
    ]
    return section("Data and teacher", "", about, bullets(data.notes), tag("h3", "Teacher"), facts(pairs))


def _machine(result: Result) -> Section | None:
    seconds = [(stage, wording.duration(value)) for stage, value in result.timings.items()]
    total = wording.duration((result.finished - result.started).total_seconds())
    # Its own checksum is known only once it is written: left out, so that it is the same when it is written again.
    named = {name: digest for name, digest in result.files.items() if name != REPORT}
    hashes: list[list[Node]] = [[tag("code", name), tag("code", digest)] for name, digest in named.items()]
    return section(
        "Machine, versions and files",
        "",
        facts([(_title(key), _plain(value)) for key, value in result.machine.items()]),
        *_titled("Versions", facts(list(result.versions.items()))),
        *_titled("Time taken", facts([*seconds, ("whole run", total)])),
        fold("Checksums of the bundle’s files (SHA-256)", table(("File", "SHA-256"), hashes)),
    )


def _again(result: Result) -> Section | None:
    request = yaml.safe_dump(result.request, sort_keys=False, allow_unicode=True) if result.request else ""
    return section(
        "How to run it again",
        "",
        tag("pre", tag("code", result.command)),
        fold("The resolved request", tag("pre", request)) if request else None,
        tag(
            "p",
            f"Started {result.started:%Y-%m-%d %H:%M %Z}, finished {result.finished:%Y-%m-%d %H:%M %Z}.",
            class_="note",
        ),
    )


def _titled(title: str, body: Html | None) -> list[Html]:
    return [] if body is None else [tag("h3", title), body]


def _title(key: str) -> str:
    """A field's name as people write it, such as "memory MB"."""
    written = {"cpu": "CPU", "gpu": "GPU", "mb": "MB", "mhz": "MHz"}
    return " ".join(written.get(word, word) for word in key.split("_"))


def _plain(value: object) -> str | None:
    """A JSON value as people write it; None where there is nothing to say."""
    if value is None or value == [] or value == {}:
        return None
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
