import itertools

import numpy as np
import pytest

from edgekd.latency.table import WidthCosts
from edgekd.models.importance import Importance
from edgekd.plan.search import best_slices
from edgekd.plan.value import value_of
from edgekd.settings.shape import Slice

HEADS, FFN = (1, 2, 4), (2, 4, 8)


@pytest.fixture(params=range(4))
def value(request):
    rng = np.random.default_rng(request.param)
    return value_of(Importance([rng.random(4) for _ in range(3)], [rng.random(8) for _ in range(3)], rng.random(3)))


def costs(bend=0.0, last=None):
    return WidthCosts(
        width=32, precision="fp32", fixed=0.3, heads=(0, 1, 2, 4), attention=(0.1, 0.3, 0.5, 0.8),
        neurons=(0, 2, 4, 8), ffn=(0.0, 0.2, 0.35, 0.7), graphs=9, residual=0.01, bend=bend, last=last,
    )  # fmt: skip


def every_slice(value, table, budget):
    """The best slice of every depth by trying all."""
    options = list(itertools.product(HEADS, FFN))
    best = {}
    for depth in (1, 2, 3):
        for layers in itertools.combinations(range(3), depth):
            for picks in itertools.product(options, repeat=depth):
                if table.whole_ms(*zip(*picks, strict=True)) <= budget:
                    kept = sum(value.layer(layer, h, f) for layer, (h, f) in zip(layers, picks, strict=True))
                    best[depth] = max(best.get(depth, 0.0), kept)
    return best


@pytest.mark.parametrize("bend", [0.0, 0.15, -0.02])
@pytest.mark.parametrize("last", [None, (0.0307, 0.0103)])
@pytest.mark.parametrize("budget", [0.5, 0.9, 1.7, 2.6, 9.0])
def test_equals_trying_everything(value, budget, bend, last):
    table = costs(bend, last)
    found = {len(s.layers): s for s in best_slices(value, table, HEADS, FFN, budget)}
    expected = every_slice(value, table, budget)
    assert found.keys() == expected.keys()
    for depth, best in expected.items():
        # Rounding time up into bins may cost a sliver; it may never gain.
        assert best - 0.02 <= value.kept(found[depth]) <= best + 1e-9
        assert table.whole_ms(found[depth].heads, found[depth].ffn) <= budget + 1e-9


def test_a_cheap_last_layer_is_kept_whole(value):
    for found in best_slices(value, costs(last=(0.001, 0.001)), HEADS, FFN, 1.2):
        assert (found.heads[-1], found.ffn[-1]) == (4, 8)


def test_nothing_fits(value):
    assert best_slices(value, costs(), HEADS, FFN, 0.2) == []


def test_whole_teacher_keeps_everything(value):
    whole = Slice(layers=(0, 1, 2), heads=(4, 4, 4), ffn=(8, 8, 8))
    assert value.kept(whole) == pytest.approx(1.0)


def test_value_of_dead_scores_is_even():
    value = value_of(Importance([np.zeros(4)] * 3, [np.zeros(8)] * 3, np.zeros(3)))
    assert value.kept(Slice(layers=(1,), heads=(4,), ffn=(8,))) == pytest.approx(1 / 3)
    assert value.layer(0, 2, 4) == pytest.approx((1 + 0.5 + 0.5) / 9)


def test_important_layer_is_kept_first():
    rng = np.random.default_rng(0)
    value = value_of(Importance([rng.random(4)] * 3, [rng.random(8)] * 3, np.array([0.0, 5.0, 0.0])))
    (only,) = [s for s in best_slices(value, costs(), HEADS, FFN, 9.0) if len(s.layers) == 1]
    assert only.layers == (1,)


def test_layer_without_enough_heads_is_offered_fewer():
    value = value_of(Importance([np.ones(2), np.ones(4)], [np.ones(8), np.ones(4)], np.ones(2)))
    for found in best_slices(value, costs(), HEADS, FFN, 9.0):
        for layer, heads, ffn in zip(found.layers, found.heads, found.ffn, strict=True):
            assert heads <= (2, 4)[layer]
            assert ffn <= (8, 4)[layer]
