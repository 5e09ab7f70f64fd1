"""The part of the report on the exported files: proof, INT8, forms of the graph, and what onnxruntime fuses."""

from __future__ import annotations

from edgekd.records.export import Exported, Form, Quantisation
from edgekd.records.result import Result
from edgekd.report import wording
from edgekd.report.markup import Html, Node, Section, facts, section, table, tag


def export_section(result: Result) -> Section | None:
    """The section, or None where nothing was exported."""
    export = result.export
    if export is None:
        return None
    parity = export.parity
    shown: list[Html | None] = [
        facts(
            [
                ("largest logit gap to PyTorch", f"{parity.max_abs_gap:.2g}"),
                ("same labels as PyTorch", wording.percent(parity.label_agreement)),
                ("texts compared", f"{parity.rows:,}"),
            ]
        )
    ]
    if export.quantisation is not None:
        shown += _quantisation(export.quantisation)
    return section("Export: parity and quantisation", "", *shown, *_graphs(export))


def _quantisation(found: Quantisation) -> list[Html | None]:
    drop, before = found.drop_points, found.drop_before if found.kept_float else None
    pairs: list[tuple[str, Node]] = [
        ("INT8", "kept" if found.kept else "not kept"),
        ("cost on validation", None if drop is None else f"{drop:.2f} points"),
        ("limit", f"{found.limit_points:g} points"),
        ("answers as FP32’s", None if found.agreement is None else wording.percent(found.agreement)),
        ("left in FP32", ", ".join(found.kept_float)),
        ("cost before", None if before is None else f"{before:.2f} points"),
    ]
    return [facts(pairs), tag("p", found.reason, class_="note") if found.reason else None]


def _graphs(found: Exported) -> list[Html | None]:
    shown: list[Html | None] = []
    if found.forms:
        heads = ("Form of the graph", "Precision", "Median", "Of the given form’s", "Logit gap")
        marked = [i for i, form in enumerate(found.forms) if form.chosen]
        shown.append(tag("h3", "Forms of the graph, measured in turns"))
        shown.append(table(heads, [_form(form) for form in found.forms], numeric=(2, 3, 4), marked=marked))
    if found.half is not None:
        half = found.half
        shown.append(
            facts(
                [
                    ("FP16: largest logit gap", f"{half.max_abs_gap:.2g}"),
                    ("FP16: answers as FP32’s", wording.percent(half.agreement)),
                    ("FP16: masks made finite", ", ".join(half.masks)),
                    ("FP16: left in FP32", ", ".join(half.kept)),
                ]
            )
        )
    rows: list[list[Node]] = [
        [name, ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"]
        for name, kinds in found.fused.items()
    ]
    if rows:
        shown.append(tag("h3", "What onnxruntime fuses"))
        shown.append(table(("File", "Fused nodes"), rows))
    return shown


def _form(form: Form) -> list[Node]:
    ratio = None
    if form.ratio is not None and form.interval is not None:
        lower, upper = form.interval
        end = "?" if upper is None else f"{upper:.3f}"
        ratio = f"{form.ratio:.3f} ({lower:.3f} to {end})"
    gap = "no answers" if form.gap is None else f"{form.gap:.1g}"
    return [
        form.name,
        form.precision.upper(),
        wording.ms(form.median_ms),
        ratio,
        gap if form.same else f"{gap}: refused",
    ]
