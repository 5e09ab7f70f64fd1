"""The report's part on how far the teacher's labels can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.records.labels import ClassNoise
from edgekd.records.result import Result
from edgekd.report import wording
from edgekd.report.markup import Html, Node, Section, facts, fold, section, table, tag

_SHOWN_CLASSES = 8


def calibration_section(result: Result) -> Section | None:
    """How sure the teacher may be, and which of its classes are noisy; None without gold labels."""
    found = result.calibration
    if found is None:
        return None
    lead = (
        f"The teacher on {found.rows:,} gold labels of validation. The calibration error is the mean gap between how "
        "sure it is and how often it is right; the temperature is what its logits would have to be divided by to "
        "close it."
    )
    wrong = [noise for noise in found.noise if noise.wrong > 0]
    shown, rest = wrong[:_SHOWN_CLASSES], wrong[_SHOWN_CLASSES:]
    return section(
        "How far the teacher’s labels can be trusted",
        lead,
        facts(
            [
                ("calibration error", wording.percent(found.error)),
                ("fitted temperature", f"{found.temperature:.3g}"),
                ("calibration error at it", wording.percent(found.fitted_error)),
            ]
        ),
        _noise(shown),
        fold(f"{len(rest)} more classes", _noise(rest)),
    )


def _noise(classes: Sequence[ClassNoise]) -> Html | None:
    rows: list[list[Node]] = [[noise.label, f"{noise.said:,}", wording.percent(noise.wrong)] for noise in classes]
    return table(("Class, as the teacher gives it", "Given", "Wrongly"), rows, numeric=(1, 2))


def outputs_section(result: Result) -> Section | None:
    """The outputs that the local teacher was made of, against it, the shipped model and gold labels."""
    found = result.outputs
    if found is None:
        return None
    lead = (
        f"A local teacher was made of {found.texts:,} outputs of another ({found.file}); they cover "
        f"{found.covered:,} of {found.test:,} test texts. The table counts equal answers on these."
    )
    with_gold = any(row.gold is not None for row in found.compared)
    heads = ["Answers of", *(["Gold labels"] if with_gold else []), "Outputs", "Local teacher"]
    rows: list[list[Node]] = [
        [
            row.name,
            *([wording.percent(row.gold)] if with_gold else []),
            wording.percent(row.outputs),
            wording.percent(row.teacher),
        ]
        for row in found.compared
    ]
    body = table(heads, rows, numeric=range(1, len(heads)))
    return section("The teacher’s outputs", lead, body or tag("p", "No test text has one.", class_="note"))
