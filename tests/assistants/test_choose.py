"""Which assistants are considered, what each rule takes of them, and what is refused."""

import itertools

import numpy as np
import pytest

from edgekd.assistants.choose import (
    LARGEST,
    Gap,
    PaidRecord,
    Regime,
    by_exhaustion,
    by_ratio,
    by_tradeoff,
    fixed,
    holds,
    none_because,
    paid,
    recorded,
    scored,
    standard_error,
)
from edgekd.errors import UsageError
from edgekd.settings.profile import parse
from edgekd.settings.shape import EncoderShape, Slice

TEACHER = EncoderShape(
    vocabulary=1, positions=1, token_types=0, embedding=96, hidden=96, head_size=16, heads=(6,) * 6, ffn=(384,) * 6
)


def gap(layers=(0, 3), heads=(2, 3), ffn=(64, 128), **changes):
    student = Slice(layers=layers, heads=heads, ffn=ffn)
    return Gap(**{"teacher": TEACHER, "student": student, "width": 96, "order": (0, 5, 1, 3, 2, 4)} | changes)


def test_candidates_hold_each_other_and_the_student_and_have_the_sizes_asked_for():
    between = gap()
    found = between.candidates()
    assert len(found) == 5
    for candidate, multiple in zip(found, (1.5, 2, 2.5, 3.5, 5), strict=True):
        assert candidate.share == pytest.approx(multiple * between.share, rel=0.08)
    for smaller, larger in zip([between.student, *(c.choice for c in found)], [c.choice for c in found], strict=False):
        assert holds(larger, smaller)
        assert not holds(smaller, larger)
    assert found[-1].choice.layers[0] == 0
    assert 5 in found[-1].choice.layers  # the most important of those that the student lacks comes first


@pytest.mark.parametrize("student", [((0, 1, 2, 3), (6,) * 4, (384,) * 4), ((0, 1, 2), (5,) * 3, (300,) * 3)])
def test_candidates_of_a_large_student_end_below_the_teacher(student):
    between = gap(*student)
    shares = [c.share for c in between.candidates()]
    assert shares == sorted(set(shares))
    assert all(between.share < share <= LARGEST + 0.01 for share in shares)


def test_nothing_lies_above_a_student_that_is_nearly_the_teacher():
    assert gap((0, 1, 2, 3, 4), (6,) * 5, (384,) * 5).candidates() == ()


def test_ratio_takes_two_and_a_half_times_the_student():
    between = gap()
    found = by_ratio(between)
    assert [a.share for a in found.taken] == [pytest.approx(2.5 * between.share, rel=0.05)]
    assert "2.5 times" in found.reason


def test_ratio_takes_none_for_a_large_student():
    found = by_ratio(gap((0, 1, 2), (5,) * 3, (300,) * 3))
    assert found.taken == ()
    assert "pays only below 35%" in found.reason


@pytest.mark.parametrize(("student", "assistants"), [(((2,), (1,), (16,)), 3), (((2,), (1,), (64,)), 2)])
def test_wide_gap_takes_a_longer_chain_largest_first(student, assistants):
    tiny = gap(*student)
    taken = by_ratio(tiny).taken
    assert len(taken) == assistants
    for larger, smaller in itertools.pairwise(taken):
        assert larger.share == pytest.approx(2.5 * smaller.share, rel=0.15)
        assert holds(larger.choice, smaller.choice)
    assert taken[0].share > 0.16


def sure(i, j):
    return 0.0


def weigh(between, scores, weight=0.2, error=sure):
    return by_tradeoff(between, scored(between.candidates(), scores), weight, error, 100)


def test_tradeoff_is_metric_plus_lambda_times_what_is_left_out():
    between = gap()
    candidate = scored(between.candidates(), [0.5, 0.6, 0.7, 0.8, 0.9])[2]
    assert candidate.tradeoff(0.2) == pytest.approx(0.7 + 0.2 * (1 - candidate.share))


def test_lambda_takes_the_best_where_all_lambdas_agree():
    between = gap()
    found = weigh(between, [0.50, 0.60, 0.70, 0.95, 0.90])
    assert found.taken == (found.considered[3],)
    assert set(found.picks) >= {"lambda 0.1", "lambda 0.15", "lambda 0.2", "lambda 0.3", "ratio", "smallest"}
    assert found.picks["most accurate"] == found.considered[3]


def test_the_larger_one_of_a_chain_is_one_that_the_run_has_trained():
    between = gap((0, 1), (1, 1), (32, 24))
    found = weigh(between, [0.95, 0.60, 0.61, 0.62, 0.63])
    assert found.picks["lambda 0.2"] == found.considered[0]
    assert found.considered[0].share < 0.16
    larger, smaller = found.taken
    assert smaller == found.considered[0]
    assert larger in found.considered
    assert larger.share >= 0.16
    # Without a run it is as near to 2.5 times as can be.
    assert between.beyond(smaller)[-2].share == pytest.approx(2.5 * smaller.share, rel=0.1)


def test_where_the_lambdas_disagree_the_nearest_to_the_ratio_is_taken():
    between = gap()
    shares = [c.share for c in between.candidates()]
    # As accurate as its size is worth at 0.2: smaller lambdas take the largest, larger ones the smallest.
    found = weigh(between, [0.5 + 0.22 * (s - shares[0]) for s in shares])
    assert found.picks["lambda 0.1"] == found.considered[4]
    assert found.picks["lambda 0.3"] == found.considered[0]
    assert found.taken == (found.considered[2],)
    assert "lambdas disagree" in found.reason


def test_validation_that_cannot_rank_falls_back_to_the_ratio_and_says_the_error():
    between = gap()
    found = weigh(between, [0.50, 0.60, 0.70, 0.95, 0.90], error=lambda i, j: 0.3)
    assert found.taken == by_ratio(between).taken
    assert "too small to rank" in found.reason
    assert "standard error 30.00" in found.reason


def test_exhaustive_takes_the_way_that_led_to_the_best_student():
    between = gap()
    reached = (0.1, 0.3, 0.2, 0.0, 0.1)
    found = [a.model_copy(update={"reached": score}) for a, score in zip(between.candidates(), reached, strict=True)]
    assert by_exhaustion(between, found).taken == (found[1],)


def test_standard_error_is_that_of_paired_differences():
    rng = np.random.default_rng(1)
    one = np.stack([rng.random(400) < 0.8, np.ones(400)], axis=1).astype(int)
    other = one.copy()
    other[:40, 0] = 1 - other[:40, 0]
    differences = (one - other)[:, 0]

    def score(counts, times):
        right, total = times @ counts
        return right / total

    assert standard_error(score, one, other) == pytest.approx(differences.std() / 20, rel=0.15)
    assert standard_error(score, one, one) == 1 / len(one)  # alike on these texts is not alike


def test_record_names_where_assistants_paid_and_the_shipped_one_is_read():
    assert paid().schema_version == 1
    regime = Regime(task="text-classification", largest_share=0.1, gain=0.6, interval=(0.1, 1.1), source="x.json")
    record = PaidRecord(regimes=(regime, regime.model_copy(update={"largest_share": 0.3, "interval": (-0.1, 1)})))
    assert recorded(record, "text-classification", 0.08) == regime
    assert recorded(record, "text-classification", 0.2) is None
    assert recorded(record, "token-classification", 0.08) is None


def test_none_tells_what_the_ratio_would_have_taken():
    found = none_because(gap(), "no gain recorded")
    assert found.taken == ()
    assert found.picks["ratio"] is not None


MIDDLE = Slice(layers=(0, 3, 5), heads=(4, 4, 1), ffn=(128, 256, 64))


def test_fixed_chain_is_taken_as_it_is():
    larger = Slice(layers=(0, 1, 3, 5), heads=(5, 6, 5, 5), ffn=(128, 384, 300, 200))
    found = fixed(gap(), (larger, MIDDLE))
    assert [a.choice for a in found.taken] == [larger, MIDDLE]


@pytest.mark.parametrize(
    ("shapes", "line"),
    [
        ((MIDDLE.model_copy(update={"layers": (0, 3, 9)}),), r"shapes\.0: keeps layer 9, but .* end at 5"),
        ((MIDDLE.model_copy(update={"heads": (7, 4, 1)}),), r"shapes\.0: keeps 7 heads .* the teacher has 6 and 384"),
        ((MIDDLE.model_copy(update={"ffn": (32, 256, 64)}),), r"shapes\.0: the student cannot be cut out of it"),
        ((MIDDLE, MIDDLE.model_copy(update={"heads": (5, 4, 1)})), r"shapes\.0: the next cannot be cut out of it"),
        ((Slice(layers=tuple(range(6)), heads=(6,) * 6, ffn=(384,) * 6),), r"shapes\.0: is as large as the teacher"),
        ((Slice(layers=(0, 3), heads=(2, 3), ffn=(64, 128)),), r"shapes\.0: is not larger than what it teaches"),
    ],
)
def test_fixed_chain_that_cannot_be(shapes, line):
    with pytest.raises(UsageError, match=line):
        fixed(gap(), shapes)


@pytest.mark.parametrize(
    ("assistants", "line"),
    [
        ({"name": "lambda", "tradeoff": 1.5}, r"distill\.assistants\.tradeoff: .*less than or equal to 1"),
        ({"name": "lambda", "tradeoff": -0.1}, r"distill\.assistants\.tradeoff: .*greater than or equal to 0"),
        ({"name": "best"}, r"distill\.assistants\.name: .*'best'"),
        ({"name": "fixed"}, r"distill\.assistants\.shapes"),
    ],
)
def test_wrong_strategy_is_one_line_that_names_the_field(assistants, line):
    with pytest.raises(UsageError, match=line):
        parse({"name": "x", "distill": {"assistants": assistants}}, "test")


def test_student_that_is_not_cut_has_no_assistant():
    with pytest.raises(
        UsageError, match="assistants ratio: the student is cut out of its assistant, but init is random"
    ):
        parse({"name": "x", "distill": {"init": {"name": "random"}, "assistants": {"name": "ratio"}}}, "test")
