"""Several slices of a teacher in one elastic run: what all of them keep is trained every step."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.assistants.chain import ELASTIC_LENGTH, REFRESH, text_flops
from edgekd.distill.elastic import ElasticRun, hull, mean_step, train_elastic
from edgekd.inputs.gather import Inputs
from edgekd.plan.planner import Planner
from edgekd.plan.weights import importance_of
from edgekd.settings.distill import Distill
from edgekd.settings.shape import Slice


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
        slices: At least two, in any order.

    Returns:
        The run, and the place of each slice among its own.
    """
    session, inputs = planner.session, planner.inputs
    hosted = inputs.teacher.hosted
    assert hosted is not None
    known = in_order(slices)
    run = train_elastic(
        session.store, session.engine, hosted, importance_of(session, inputs).importance, known, inputs.task,
        inputs.lesson(), spec.schedule(kept=0.0)[-1], spec.seed, title,
    )  # fmt: skip
    return run, {choice: known.index(choice) for choice in slices}


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """What all of these keep, which every step trains, and then these, none of them twice.

    Every step trains the first: with one of several that is no part of the others, it alone would be favoured.
    """
    core = common(slices) or min(slices, key=_parts)
    return [core, *(choice for choice in dict.fromkeys(slices) if choice != core)]


def cost_together(inputs: Inputs, slices: Sequence[Slice]) -> float:
    """What training these in one elastic run, and each a little on its own after it, costs of training each alone.

    In floating-point operations, the run being `ELASTIC_LENGTH` times as long.
    """
    assert inputs.teacher.hosted is not None
    teacher = inputs.teacher.hosted[0]

    def size(choice: Slice) -> float:
        return text_flops(inputs, teacher.model_copy(update={"heads": choice.heads, "ffn": choice.ffn}))

    return ELASTIC_LENGTH * mean_step([*map(size, in_order(slices))]) / sum(map(size, slices)) + REFRESH


def _parts(choice: Slice) -> int:
    return sum(choice.heads) + sum(choice.ffn)
