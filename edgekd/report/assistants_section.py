"""The part of the report on teacher assistants: which there were, what each rule makes of them, and what they cost."""

from __future__ import annotations

from edgekd.records.assistants import Assistant, Assistants, Choice
from edgekd.records.result import Result
from edgekd.report import wording
from edgekd.report.markup import Html, Node, facts, join, table, tag


def assistants(result: Result) -> list[Html | None]:
    """Candidates, picks and cost; empty where the student was not cut out of a teacher."""
    found = result.assistants
    if found is None:
        return []
    choice = found.choice
    shown = sorted({a.choice: a for a in (*choice.taken, *choice.considered)}.values(), key=lambda a: a.share)
    weights = choice.lambdas if any(a.score is not None for a in shown) else ()
    through = any(a.reached is not None for a in shown)
    heads = ["Assistant", "Encoder, of the teacher's", "Validation", *(f"t, lambda {w:g}" for w in weights)]
    heads += ["Student through it"] if through else []
    rows = [_row(a, choice, weights, through) for a in shown]
    marked = [i for i, a in enumerate(shown) if a in choice.taken]
    if not choice.taken:
        rows.insert(0, [_named("none", f"taken: {choice.reason}"), *[None] * (len(heads) - 1)])
        marked = [0]
    return [
        tag("h3", "Teacher assistants considered"),
        table(tuple(heads), rows, numeric=tuple(range(1, len(heads))), marked=marked),
        _cost(found),
    ]


def _row(assistant: Assistant, choice: Choice, weights: tuple[float, ...], through: bool) -> list[Node]:
    # The one that teaches the student is what was chosen; those before it follow from its size.
    chosen = bool(choice.taken) and assistant == choice.taken[-1]
    said = f"taken: {choice.reason}" if chosen else "taken" if assistant in choice.taken else ""
    cells: list[Node] = [
        _named(assistant.shape.describe(), said),
        wording.percent(assistant.share),
        None if assistant.score is None else wording.percent(assistant.score),
        *(None if assistant.score is None else f"{assistant.tradeoff(weight):.4f}" for weight in weights),
    ]
    return [*cells, None if assistant.reached is None else wording.percent(assistant.reached)] if through else cells


def _named(name: str, said: str) -> Html:
    return join([name, tag("span", said, class_="below") if said else None])


def _cost(found: Assistants) -> Html | None:
    spent = sum(found.flops.values())
    cost = f"{spent / found.finetune_flops:.2f} times" if spent else "nothing"
    picks = {rule: "none" if pick is None else pick.describe() for rule, pick in found.choice.picks.items()}
    pairs: list[tuple[str, Node]] = [
        ("strategy", found.strategy),
        ("student’s encoder, of the teacher’s", wording.percent(found.student_share)),
        *((f"{rule} would take", pick) for rule, pick in picks.items()),
        *((name, f"{flops:.3g} FLOPs") for name, flops in found.flops.items()),
        ("cost, against training the teacher for as many steps", cost),
    ]
    return facts(pairs)
