"""The students that a teacher may be cut to: what each would take, keep and weigh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.latency.table import LatencyTable, WidthCosts, narrowed
from edgekd.plan.search import best_slices
from edgekd.plan.value import Value
from edgekd.records.plan import Candidate, Plan
from edgekd.settings.profile import Profile
from edgekd.settings.shape import EncoderShape, Slice
from edgekd.settings.target import Precision

# INT8 moves the answers a little: of two that keep the same, the exact one is taken.
_INT8_PENALTY = 0.99

# Names and nodes of a layer in the file.
_LAYER_BYTES = {"fp32": 4000, "int8": 8000, "fp16": 4000}

# The whole room and a little less: what fills it by prediction is over it as often as not when it is measured.
_SPARE = (1.0, 0.96, 0.92)

# Rooms tried below that, where a smaller file is wanted than what fills the time.
_TIGHTER = (0.7, 0.5, 0.35, 0.25, 0.18, 0.12)


@dataclass(frozen=True)
class SearchSpace:
    """The students that are considered, and what is known of them before any is measured.

    Attributes:
        profile: Its ladders of heads and neurons, and its limit on the file.
        precisions: Those to choose from.
        shape: The teacher's.
        value: Importance shares.
        explained: Share of the hidden states' energy kept, by width.
        table: The device's latency table.
    """

    profile: Profile
    precisions: Sequence[Precision]
    shape: EncoderShape
    value: Value
    explained: dict[int, float]
    table: LatencyTable

    def finalists(self, plan: Plan) -> tuple[list[Candidate], list[Candidate]]:
        """The frontier, and those of it to be measured, best first; none where all are too large."""
        found = self.frontier(plan)
        light = sorted((c for c in found if c.fits), key=lambda c: (-score(c), c.predicted_ms))
        return found, light[: self.profile.search.finalists]

    def frontier(self, plan: Plan) -> list[Candidate]:
        """Those that keep most at each depth, width and precision within the plan's limit."""
        heads, ffn = ladders(self.shape, self.profile)
        # Predictions are of the median of the model alone; the budget is a percentile of the whole call.
        room = plan.limit_ms / (plan.tail * plan.correction) - plan.overhead_ms
        rooms = [share * room for share in (_SPARE if self.profile.accept.max_mb is None else (*_SPARE, *_TIGHTER))]
        found = []
        for costs in self.table.costs:
            if costs.precision in self.precisions and costs.width in self.explained:
                slices = (s for r in rooms for s in best_slices(self.value, costs, heads, ffn, r))
                found += [self._candidate(plan, costs, choice) for choice in dict.fromkeys(slices)]
        return found

    def floor(self, plan: Plan) -> Candidate:
        """The fastest student there is, with what it would take and why nothing is faster."""
        heads, ffn = ladders(self.shape, self.profile)
        costs = min(
            (c for c in self.table.costs if c.precision in self.precisions),
            key=lambda c: c.whole_ms(heads[:1], ffn[:1]),
        )
        layers = [self.value.layer(layer, heads[0], ffn[0]) for layer in range(self.shape.depth)]
        choice = Slice(layers=(int(np.argmax(layers)),), heads=(heads[0],), ffn=(ffn[0],))
        found = self._candidate(plan, costs, choice)
        note = too_slow(plan, found, found.best_known_ms, "would take")
        return found.model_copy(update={"fits": False, "note": note})

    def _candidate(self, plan: Plan, costs: WidthCosts, choice: Slice) -> Candidate:
        shape = self._narrowed(costs.width, choice)
        note = over_size(model_mb(shape, costs.precision), self.profile)
        median_ms = costs.whole_ms(choice.heads, choice.ffn)
        return Candidate(
            kind="student",
            precision=costs.precision,
            shape=shape,
            choice=choice,
            kept=self.value.kept(choice) * self.explained[costs.width] ** len(choice.layers),
            predicted_ms=(median_ms + plan.overhead_ms) * plan.tail * plan.correction,
            measured_ms=None,
            fits=not note,
            note=note,
        )

    def _narrowed(self, width: int, choice: Slice) -> EncoderShape:
        """The shape of a slice of the teacher at a width."""
        shape = self.shape
        if width == shape.hidden:
            return shape.model_copy(update={"heads": choice.heads, "ffn": choice.ffn})
        narrow = narrowed(shape, width, choice.heads, choice.ffn)
        return narrow if shape.embedding == shape.hidden else narrow.model_copy(update={"embedding": shape.embedding})


def score(candidate: Candidate) -> float:
    """What the search maximises: the share of the teacher's importance that is kept, a little less for INT8."""
    return candidate.kept * (_INT8_PENALTY if candidate.precision == "int8" else 1.0)


def widths_of(shape: EncoderShape, shares: Sequence[float]) -> list[int]:
    """Hidden widths tried, widest first: multiples of 32, as kernels like them."""
    widths = {shape.hidden if share >= 1 else max(32, round(shape.hidden * share / 32) * 32) for share in shares}
    return sorted((w for w in widths if w <= shape.hidden), reverse=True)


def ladders(shape: EncoderShape, profile: Profile) -> tuple[list[int], list[int]]:
    """Numbers of heads and of neurons that a layer may have."""
    heads = {max(1, round(share * max(shape.heads))) for share in profile.search.head_shares}
    step = 8 if max(shape.ffn) >= 64 else 1  # kernels like multiples of 8
    ffn = {max(1, round(share * max(shape.ffn) / step) * step) for share in profile.search.ffn_shares}
    return sorted(heads), sorted(f for f in ffn if f <= max(shape.ffn))


def explained_by_width(states: np.ndarray, widths: Sequence[int], full: int) -> dict[int, float]:
    """Share of the hidden states' energy that the best directions hold at each width."""
    centred = states.astype(np.float64) - states.mean(axis=1, keepdims=True)
    energy = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    return {w: 1.0 if w == full else float(energy[:w].sum() / energy.sum()) for w in widths}


def over_size(size_mb: float, profile: Profile) -> str:
    """Why a file of this size is not taken; empty where it may be."""
    limit = profile.accept.max_mb
    return f"{size_mb:.3g} MB, over --max-mb {limit:g}" if limit is not None and size_mb > limit else ""


def model_mb(shape: EncoderShape, precision: Precision) -> float:
    """Size of the file that the graph writer, and for INT8 the quantiser, makes of a shape, in MB of 10^6 bytes.

    INT8 holds a byte for each entry of a table or a product, and a scale and a zero point for each column of a
    product. Positions, and the product that yields the logits, stay FP32.
    """
    total = 0.0
    for name, size in shape.weight_shapes().items():
        entries = math.prod(size)
        if precision == "fp32" or len(size) < 2 or name.startswith(("head.output", "embeddings.position")):
            total += 4 * entries
        elif name.startswith("embeddings."):
            total += entries
        else:
            total += entries + 5 * size[0]
    return (total + _LAYER_BYTES[precision] * (1 + shape.depth)) / 1e6


def too_slow(plan: Plan, smallest: Candidate, whole_ms: float, takes: str) -> str:
    """Why not even the smallest student fits."""
    shape = smallest.shape
    assert shape is not None
    work = plan.overhead_ms * plan.tail * plan.correction
    if work >= plan.budget_ms:
        return (
            f"nothing fits {plan.budget_ms:g} ms: tokenising and answering alone take {work:.2f} ms at "
            f"{plan.max_length} tokens, so no model can meet it; ask for more, or for a smaller --max-length"
        )
    return (
        f"nothing fits {plan.budget_ms:g} ms: the smallest student, one layer of {shape.heads[0]} heads and "
        f"{shape.ffn[0]} neurons at width {shape.hidden}, {smallest.precision.upper()}, {takes} {whole_ms:.2f} ms, "
        f"with {work:.2f} ms of tokenising and answering, at {plan.max_length} tokens"
    )
