"""Several slices of a teacher in one elastic run: what all of them keep is trained every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.distill.elastic import ElasticRun, hull, train_elastic
from edgekd.distill.spec import Distill
from edgekd.inputs import Inputs
from edgekd.models.initialize import Slice
from edgekd.pipeline.chain import REFRESH, text_flops
from edgekd.plan.stage import Planner, importance_of


def common(slices: Sequence[Slice]) -> Slice | None:
    """What all of these keep; None where they share no layer."""
    sizes = [dict(zip(s.layers, zip(s.heads, s.ffn, strict=True), strict=True)) for s in slices]
    layers = [layer for layer in hull(slices).layers if all(layer in each for each in sizes)]
    if not layers:
        return None
    heads, ffn = ([min(each[layer][part] for each in sizes) for layer in layers] for part in (0, 1))
    return Slice(layers=tuple(layers), heads=tuple(heads), ffn=tuple(ffn))


def train_together(
    planner: Planner, slices: Sequence[Slice], spec: Distill, title: str
) -> tuple[ElasticRun, dict[Slice, int]]:
    """One elastic run of these, by the last stage.

    Args:
        planner: Teacher and data.
        slices: At least two, in any order.
        spec: The schedule.
        title: Title of the progress bar.

    Returns:
        The run, and the place of each slice among its own.
    """
    session, inputs = planner.session, planner.inputs
    hosted = inputs.teacher.hosted
    assert hosted is not None
    known = sandwiched(slices)
    run = train_elastic(
        session.store, session.engine, hosted, importance_of(session, inputs).importance, known, inputs.task,
        inputs.lesson(), spec.schedule(kept=0.0)[-1], spec.seed, title,
    )  # fmt: skip
    return run, {choice: known.index(choice) for choice in slices}


def sandwiched(slices: Sequence[Slice]) -> list[Slice]:
    """These in the order of a sandwich: what all of them keep first, what holds all of them last, none of them twice.

    Every step trains the first and the last: with one of several that is neither there, it alone would be favoured.
    """
    whole, core = hull(slices), common(slices) or min(slices, key=_parts)
    middle = [choice for choice in dict.fromkeys(slices) if choice not in (core, whole)]
    return [core, *middle, whole]


def cost_together(inputs: Inputs, slices: Sequence[Slice]) -> float:
    """What training these in one elastic run, and each a little on its own after it, costs of training each alone.

    In floating-point operations, at equal steps.
    """
    assert inputs.teacher.hosted is not None
    teacher = inputs.teacher.hosted[0]

    def size(choice: Slice) -> float:
        return text_flops(inputs, teacher.model_copy(update={"heads": choice.heads, "ffn": choice.ffn}))

    first, *middle, last = sandwiched(slices)
    step = size(first) + (float(np.mean([*map(size, middle)])) if middle else 0.0) + size(last)
    return step / sum(map(size, slices)) + REFRESH


def _parts(choice: Slice) -> int:
    return sum(choice.heads) + sum(choice.ffn)
