"""Slices trained in one elastic run: what they have in common, and what it costs."""

import pytest

from edgekd.distill.elastic import hull
from edgekd.distill.spec import Distill, Stage, Training
from edgekd.models.initialize import Slice
from edgekd.pipeline.chain import REFRESH, REFRESH_RATE, refreshing
from edgekd.pipeline.together import common, cost_together, sandwiched

DEEP = Slice(layers=(0, 1, 2), heads=(1, 1, 1), ffn=(8, 8, 8))
WIDE = Slice(layers=(0, 2), heads=(2, 1), ffn=(16, 24))
FLAT = Slice(layers=(0,), heads=(4,), ffn=(48,))
ALONE = Slice(layers=(1,), heads=(4,), ffn=(48,))


def test_common_is_what_all_keep():
    assert common([DEEP, WIDE, FLAT]) == Slice(layers=(0,), heads=(1,), ffn=(8,))
    assert common([WIDE, ALONE]) is None


def test_a_sandwich_begins_with_what_all_keep_and_ends_with_what_holds_all():
    small = Slice(layers=(0, 1, 2), heads=(1, 1, 1), ffn=(8, 8, 8))
    large = Slice(layers=(0, 1, 2), heads=(2, 2, 2), ffn=(16, 16, 16))
    assert sandwiched([large, small]) == [small, large]  # however they come: the larger one must not count twice
    core, *middle, whole = sandwiched([DEEP, WIDE])
    assert (core, middle) == (common([DEEP, WIDE]), [DEEP, WIDE])
    assert whole == hull([DEEP, WIDE])
    assert sandwiched([ALONE, WIDE])[0] == WIDE  # nothing in common: the smallest


def test_three_nested_slices_cost_no_less_together(planner):
    nested = [Slice(layers=(0, 1, 2), heads=(h,) * 3, ffn=(8 * h,) * 3) for h in (1, 2, 4)]
    assert cost_together(planner.inputs, nested) == pytest.approx(1 + REFRESH)


def test_five_cost_less(planner):
    sizes = [(1, 8), (2, 16), (3, 24), (4, 32), (4, 48)]
    nested = [Slice(layers=(0, 1, 2), heads=(h,) * 3, ffn=(f,) * 3) for h, f in sizes]
    assert 0.5 < cost_together(planner.inputs, nested) < 0.8


def test_a_slice_is_trained_on_briefly_and_gently():
    asked = Distill(stages=(Stage(training=Training(epochs=5, learning_rate=1e-3), max_steps=200),))
    (stage,) = refreshing(asked).schedule(kept=0.9)
    assert (stage.max_steps, stage.training.epochs) == (200 * REFRESH, 5 * REFRESH)
    assert stage.training.learning_rate == pytest.approx(REFRESH_RATE * 1e-3)
