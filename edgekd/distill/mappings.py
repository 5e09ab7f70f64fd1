"""Which teacher layer teaches which student layer. Layers count from 1; 0 is the embeddings' output."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from edgekd.errors import UsageError
from edgekd.settings.losses import LayerMapping

LayerPairs = tuple[tuple[int, int], ...]


def layer_pairs(spec: LayerMapping, teacher_layers: int, student_layers: int, *, embeddings: bool = True) -> LayerPairs:
    """The pairs (teacher layer, student layer) that `spec` names, each once, by student layer.

    Depths need not be multiples. Where the student is deeper (N > M), `last_k` and `uniform_last` are refused,
    for M - N + i is no layer; `uniform` gives its lowest layers the teacher's layer 1, and `uniform_consecutive`
    its highest the teacher's last (as it does wherever k N > M).

    Args:
        teacher_layers: The teacher's depth M.
        student_layers: The student's depth N.
        embeddings: Whether layer 0 may be paired: hidden states have it, attention does not. Only
            `uniform_consecutive` and `pairs` name it.

    Returns:
        The pairs; of `emd` all M N of layers from 1, teacher by teacher, as `emd_weights` reads costs row by row.

    Raises:
        UsageError: A pair names a layer that is not there, or the mapping needs a shallower student.
    """
    m, n, lowest = teacher_layers, student_layers, 0 if embeddings else 1
    if spec.name == "pairs":
        return _given(spec, m, n, lowest)
    if spec.name == "last":
        return ((m, n),)
    if spec.name == "emd":
        return tuple((t, s) for t in range(1, m + 1) for s in range(1, n + 1))
    if spec.name in ("last_k", "uniform_last") and n > m:
        raise UsageError(
            f"mapping {spec.name}: the student has {n} layers, the teacher only {m}; choose last, uniform or emd"
        )
    return tuple((t, s) for s in range(1, n + 1) for t in _teachers(spec.name, s, m, n, lowest))


def _teachers(name: str, i: int, m: int, n: int, lowest: int) -> list[int]:
    """Teacher layers of student layer i, ascending, each once."""
    spaced, late = max(1, i * m // n), m - n + i
    if name == "last_k":
        return [late]
    if name == "uniform":
        return [spaced]
    if name == "uniform_last":
        return sorted({spaced, late})
    k = -(-m // n)
    return list(range(max(lowest, min(k * (i - 1), m)), min(k * i, m) + 1))


def _given(spec: LayerMapping, m: int, n: int, lowest: int) -> LayerPairs:
    for pair in spec.pairs:
        for owner, layer, depth in zip(("teacher", "student"), pair, (m, n), strict=True):
            if not lowest <= layer <= depth:
                raise UsageError(
                    f"mapping pairs: layer {layer} of the {owner} in ({pair[0]}, {pair[1]}) is not there; "
                    f"give one of {lowest} to {depth}"
                )
    return tuple(sorted(set(spec.pairs), key=lambda pair: (pair[1], pair[0])))


def emd_weights(costs: Tensor) -> Tensor:
    """The optimal transport plan between a teacher's and a student's layers, all of equal mass (BERT-EMD, eq. 5).

    Args:
        costs: Distance of each teacher layer from each student layer (M, N); no gradient is taken through the plan.

    Returns:
        (M, N) in the costs' type and device, nonnegative; rows sum to 1 / M, columns to 1 / N. The loss is
        `(plan * costs).sum()`. Costs that are not finite get even weights, so that they reach the loss and stop
        the run.
    """
    found = costs.detach().double().cpu()
    m, n = found.shape
    if not bool(torch.isfinite(found).all()):
        return torch.full_like(costs, 1 / (m * n), requires_grad=False)
    # One row of the plan after the other: each row and each column has its sum.
    sums = np.vstack([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    masses = np.concatenate([np.full(m, 1 / m), np.full(n, 1 / n)])
    solved = linprog(found.numpy().ravel(), A_eq=sums, b_eq=masses, method="highs-ds")
    return torch.as_tensor(solved.x.reshape(m, n)).clamp(min=0).to(costs)
