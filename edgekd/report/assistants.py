"""The part of the report on teacher assistants: which there were, what each rule makes of them, and what they cost."""

from __future__ import annotations

from edgekd.records.chain import ChainStep
from edgekd.records.result import Result
from edgekd.report import wording
from edgekd.report.markup import Html, Node, facts, join, table, tag


def assistants(result: Result) -> list[Html | None]:
    """Candidates, picks and cost; empty where the student was not cut out of a teacher."""
    if not result.chain:
        return []
    weights = sorted({weight for step in result.chain for weight in step.tradeoffs}, key=float)
    heads = ["Assistant", "Encoder, of the teacher's", "Validation", *(f"t, lambda {w}" for w in weights)]
    through = any(step.reached is not None for step in result.chain)
    heads += ["Student through it"] if through else []
    rows = [_step(step, weights, through) for step in result.chain]
    marked = [i for i, step in enumerate(result.chain) if step.taken]
    return [
        tag("h3", "Teacher assistants considered"),
        table(tuple(heads), rows, numeric=tuple(range(1, len(heads))), marked=marked),
        *_summary(result),
    ]


def _step(step: ChainStep, weights: list[str], through: bool) -> list[Node]:
    said = ": ".join(part for part in ("taken" if step.taken else "", step.reason) if part)
    tradeoffs = [step.tradeoffs.get(weight) for weight in weights]
    cells: list[Node] = [
        join([step.name, tag("span", said, class_="below") if said else None]),
        None if step.share is None else wording.percent(step.share),
        None if step.score is None else wording.percent(step.score),
        *(None if value is None else f"{value:.4f}" for value in tradeoffs),
    ]
    return [*cells, None if step.reached is None else wording.percent(step.reached)] if through else cells


def _summary(result: Result) -> list[Html | None]:
    found = result.chain_summary
    if found is None:
        return []
    spent = sum(found.flops.values())
    cost = f"{spent / found.finetune_flops:.2f} times" if spent else "nothing"
    pairs: list[tuple[str, Node]] = [
        ("strategy", found.strategy),
        ("student’s encoder, of the teacher’s", wording.percent(found.student_share)),
        *((f"{rule} would take", pick) for rule, pick in found.picks.items()),
        *((name, f"{flops:.3g} FLOPs") for name, flops in found.flops.items()),
        ("cost, against training the teacher for as many steps", cost),
    ]
    return [facts(pairs)]
