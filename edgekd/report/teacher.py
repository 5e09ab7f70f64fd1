"""The report's part on how far the teacher's labels can be trusted."""

from __future__ import annotations

from edgekd.report import wording
from edgekd.report.markup import Html, Node, section, table, tag
from edgekd.report.result import Result


def outputs_section(result: Result) -> Html | None:
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
