from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.mappings import emd_weights, layer_pairs
from edgekd.errors import UsageError
from edgekd.settings.losses import LayerMapping


def taught(spec, m, n, **settings):
    """Student layer -> teacher layers."""
    found = {}
    for teacher, student in layer_pairs(spec, m, n, **settings):
        found.setdefault(student, []).append(teacher)
    return found


def test_multiples_by_hand():
    assert layer_pairs(LayerMapping(name="last"), 12, 4) == ((12, 4),)
    assert taught(LayerMapping(name="last_k"), 12, 4) == {1: [9], 2: [10], 3: [11], 4: [12]}
    assert taught(LayerMapping(name="uniform"), 12, 4) == {1: [3], 2: [6], 3: [9], 4: [12]}
    assert taught(LayerMapping(name="uniform_consecutive"), 12, 4) == {
        1: [0, 1, 2, 3],
        2: [3, 4, 5, 6],
        3: [6, 7, 8, 9],
        4: [9, 10, 11, 12],
    }
    assert taught(LayerMapping(name="uniform_last"), 12, 4) == {1: [3, 9], 2: [6, 10], 3: [9, 11], 4: [12]}
    assert layer_pairs(LayerMapping(name="emd"), 2, 3) == ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3))


def test_no_multiples_by_hand():
    assert taught(LayerMapping(name="uniform"), 12, 5) == {1: [2], 2: [4], 3: [7], 4: [9], 5: [12]}
    assert taught(LayerMapping(name="uniform_last"), 7, 3) == {1: [2, 5], 2: [4, 6], 3: [7]}
    # k = 2, so that k N = 8 > 5: the last student layers share the teacher's last.
    assert taught(LayerMapping(name="uniform_consecutive"), 5, 4) == {1: [0, 1, 2], 2: [2, 3, 4], 3: [4, 5], 4: [5]}
    assert taught(LayerMapping(name="uniform_consecutive"), 5, 4, embeddings=False)[1] == [1, 2]


def test_a_deeper_student():
    assert taught(LayerMapping(name="uniform"), 3, 5) == {1: [1], 2: [1], 3: [1], 4: [2], 5: [3]}
    assert taught(LayerMapping(name="uniform_consecutive"), 2, 4) == {1: [0, 1], 2: [1, 2], 3: [2], 4: [2]}
    for spec in (LayerMapping(name="last_k"), LayerMapping(name="uniform_last")):
        with pytest.raises(UsageError, match=f"mapping {spec.name}: the student has 5 layers, the teacher only 3"):
            layer_pairs(spec, 3, 5)


@pytest.mark.parametrize(
    "spec",
    [
        LayerMapping(name="last"),
        LayerMapping(name="last_k"),
        LayerMapping(name="uniform"),
        LayerMapping(name="uniform_consecutive"),
        LayerMapping(name="uniform_last"),
        LayerMapping(name="emd"),
    ],
)
@pytest.mark.parametrize("embeddings", [True, False])
def test_any_depths_stay_in_range(spec, embeddings):
    for m, n in itertools.product(range(1, 14), repeat=2):
        if n > m and spec.name in ("last_k", "uniform_last"):
            continue
        pairs = layer_pairs(spec, m, n, embeddings=embeddings)
        assert len(set(pairs)) == len(pairs)
        lowest = 0 if embeddings and spec.name == "uniform_consecutive" else 1
        assert {t for t, _ in pairs} <= set(range(lowest, m + 1))
        students = {s for _, s in pairs}
        assert students == ({n} if spec.name == "last" else set(range(1, n + 1)))
        assert (m, n) in pairs
        if spec.name in ("uniform_consecutive", "emd"):
            assert {t for t, _ in pairs} == set(range(lowest, m + 1))


def test_given_pairs():
    assert layer_pairs(LayerMapping(name="pairs", pairs=((4, 2), (0, 0), (4, 2), (3, 1))), 4, 2) == (
        (0, 0),
        (3, 1),
        (4, 2),
    )


@pytest.mark.parametrize(
    ("pair", "embeddings", "message"),
    [
        ((9, 1), True, r"mapping pairs: layer 9 of the teacher in \(9, 1\) .* 0 to 6"),
        ((6, 4), True, r"mapping pairs: layer 4 of the student in \(6, 4\) .* 0 to 3"),
        ((0, 1), False, "layer 0 of the teacher .* 1 to 6"),
        ((1, 0), False, "layer 0 of the student .* 1 to 3"),
    ],
)
def test_pairs_out_of_range_are_refused(pair, embeddings, message):
    with pytest.raises(UsageError, match=message):
        layer_pairs(LayerMapping(name="pairs", pairs=((1, 1), pair)), 6, 3, embeddings=embeddings)


def test_layers_below_the_embeddings_are_refused_at_load():
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        LayerMapping(name="pairs", pairs=((-1, 1),))


def test_plans_by_hand():
    matched = emd_weights(torch.tensor([[5.0, 0.0], [0.0, 5.0]]))
    torch.testing.assert_close(matched, torch.tensor([[0.0, 0.5], [0.5, 0.0]]))
    # Three teacher layers on two students: the middle one, torn between them, is split.
    split = emd_weights(torch.tensor([[0.0, 4.0], [1.0, 1.0], [4.0, 0.0]]))
    torch.testing.assert_close(split, torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]]) / 6)
    torch.testing.assert_close(emd_weights(torch.tensor([[3.0, 1.0, 2.0]])), torch.full((1, 3), 1 / 3))


@pytest.mark.parametrize(
    ("m", "n", "distance"),
    [(12, 4, 0.2196678643154887), (5, 3, 0.34306588826061374), (3, 5, 0.2712499834954903), (1, 1, 0.5118216247002567)],
)
def test_plan_reaches_the_distance_that_pot_found(m, n, distance):
    """The distances are those of POT 0.9.7 (`ot.emd2`)."""
    costs = np.random.default_rng(m * n).random((m, n))
    plan = emd_weights(torch.tensor(costs))
    assert plan.dtype == torch.float64
    torch.testing.assert_close(plan.sum(1), torch.full((m,), 1 / m, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((n,), 1 / n, dtype=torch.float64))
    assert bool((plan >= 0).all())
    assert float((plan * torch.tensor(costs)).sum()) == pytest.approx(distance, abs=1e-9)


def test_gradient_passes_through_the_costs_alone():
    costs = torch.rand(4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plan = emd_weights(costs)
    assert not plan.requires_grad
    (plan * costs).sum().backward()
    assert torch.equal(costs.grad, plan)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_costs_reach_the_loss(bad):
    costs = torch.tensor([[1.0, bad], [2.0, 3.0]], requires_grad=True)
    plan = emd_weights(costs)
    assert not plan.requires_grad
    torch.testing.assert_close(plan, torch.full((2, 2), 0.25))
    assert not bool(torch.isfinite((plan * costs).sum()))
