"""What `edgekd validate` found, as Markdown: for a pull request, or a pipeline's summary."""

from __future__ import annotations

from edgekd.proof.validate import Validation
from edgekd.report import wording
from edgekd.report.model_card import plain, table


def validation_table(found: Validation, name: str) -> str:
    """A heading, a row a criterion, and what changed since the bundle was made.

    Args:
        name: The bundle's.
    """
    rows = [
        [
            f"{wording.MARK[c.outcome]} {wording.BADGE[c.outcome].lower()}",
            plain(c.name),
            wording.limit(c),
            wording.quantity(c.value, c.unit),
            plain(c.explanation),
        ]
        for c in found.criteria
    ]
    changes = [f"- {plain(c.what)}: {plain(c.then or 'none')} → {plain(c.now or 'none')}" for c in found.changes]
    parts = [
        f"### {wording.MARK[found.outcome]} {plain(name)}: {wording.BADGE[found.outcome].lower()}",
        table(("Outcome", "Criterion", "Limit", "Found", "Why"), rows) if rows else "",
        "\n".join(["Changed since it was made:", "", *changes]) if changes else "",
        "\n".join(f"- {plain(note)}" for note in found.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n\n"


def broken_bundle(name: str, why: str) -> str:
    """A heading and the line, where nothing could be checked."""
    return f"### {wording.MARK['missed']} {plain(name)}: not checked\n\n{plain(why)}\n\n"
