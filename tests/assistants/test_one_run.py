"""Slices trained in one elastic run: what they have in common, and what it costs."""

import pytest

from edgekd.assistants.chain import ELASTIC_LENGTH, REFRESH, REFRESH_RATE, refreshing
from edgekd.assistants.one_run import common, cost_together, in_order
from edgekd.settings.distill import Distill, Stage, Training
from edgekd.settings.shape import Slice

DEEP = Slice(layers=(0, 1, 2), heads=(1, 1, 1), ffn=(8, 8, 8))
WIDE = Slice(layers=(0, 2), heads=(2, 1), ffn=(16, 24))
FLAT = Slice(layers=(0,), heads=(4,), ffn=(48,))
ALONE = Slice(layers=(1,), heads=(4,), ffn=(48,))


def test_common_is_what_all_keep():
    assert common([DEEP, WIDE, FLAT]) == Slice(layers=(0,), heads=(1,), ffn=(8,))
    assert common([WIDE, ALONE]) is None


def test_what_all_keep_comes_first():
    small = Slice(layers=(0, 1, 2), heads=(1, 1, 1), ffn=(8, 8, 8))
    large = Slice(layers=(0, 1, 2), heads=(2, 2, 2), ffn=(16, 16, 16))
    assert in_order([large, small, large]) == [small, large]  # however they come, and none of them twice
    assert in_order([WIDE, DEEP]) == [common([DEEP, WIDE]), WIDE, DEEP]
    assert in_order([ALONE, WIDE])[0] == WIDE  # nothing in common: the smallest


def test_three_nested_slices_cost_less_together_and_two_do_not(planner):
    nested = [Slice(layers=(0, 1, 2), heads=(h,) * 3, ffn=(8 * h,) * 3) for h in (1, 2, 4)]
    assert cost_together(planner.inputs, nested[:2]) == pytest.approx(ELASTIC_LENGTH + REFRESH)
    # 1 and the mean of 2 and 4 to the sum of all.
    assert cost_together(planner.inputs, nested) == pytest.approx(ELASTIC_LENGTH * 4 / 7 + REFRESH, abs=0.05)


def test_five_cost_less(planner):
    sizes = [(1, 8), (2, 16), (3, 24), (4, 32), (4, 48)]
    nested = [Slice(layers=(0, 1, 2), heads=(h,) * 3, ffn=(f,) * 3) for h, f in sizes]
    assert 0.5 < cost_together(planner.inputs, nested) < 0.8


def test_a_slice_is_trained_on_briefly_and_gently():
    asked = Distill(stages=(Stage(training=Training(epochs=5, learning_rate=1e-3), max_steps=200),))
    (stage,) = refreshing(asked).schedule(kept=0.9)
    assert (stage.max_steps, stage.training.epochs) == (200 * REFRESH, 5 * REFRESH)
    assert stage.training.learning_rate == pytest.approx(REFRESH_RATE * 1e-3)
