"""The report's section on the text that the student learned from."""

from __future__ import annotations

from edgekd.records.result import Result
from edgekd.records.transfer import GenericSummary
from edgekd.report import wording
from edgekd.report.markup import Html, Node, Section, fold, section, table, tag

_KINDS = {
    "labelled": "yours, with gold labels",
    "unlabelled": "yours, without",
    "generic": "generic, chosen by likeness to yours",
    "augmented": "made from yours",
}


def transfer_section(result: Result, figure: Html | None) -> Section | None:
    """What the student learned from; None where nothing was recorded."""
    transfer = result.transfer
    if transfer is None:
        return None
    rows: list[list[Node]] = [[_KINDS.get(kind, kind), f"{n:,}"] for kind, n in transfer.counts.items() if n]
    rows += [[f"by {policy}", f"{n:,}"] for policy, n in transfer.policies.items()]
    lead = "The teacher labels every text; none of them is in validation or test."
    generic = [] if transfer.generic is None else _generic(transfer.generic, figure)
    return section("What the student learned from", lead, table(("Texts", "Number"), rows, numeric=(1,)), *generic)


def _generic(generic: GenericSummary, figure: Html | None) -> list[Html | None]:
    chosen = sum(generic.sources.values())
    nearer = "nearer to" if generic.kl_reduction >= 0 else "farther from"
    said = (
        f"{chosen:,} of {generic.pool_size:,} texts were chosen; their n-grams are "
        f"{abs(generic.kl_reduction):.2f} nats {nearer} yours than those of as many random texts."
    )
    sources: list[list[Node]] = [[name, f"{n:,}"] for name, n in list(generic.sources.items())[:20]]
    return [
        tag("h3", "Generic texts"),
        tag("p", said, class_="note"),
        figure,
        fold("Where they came from", table(("Source", "Texts"), sources, numeric=(1,))),
        _examples("Examples of the chosen", generic.chosen_examples),
        _examples("Examples of the refused", generic.refused_examples),
    ]


def _examples(title: str, examples: tuple[tuple[str, float], ...]) -> Html | None:
    rows: list[list[Node]] = [[text, wording.number(score)] for text, score in examples]
    return fold(title, table(("Text", "Likeness"), rows, numeric=(1,))) if rows else None
