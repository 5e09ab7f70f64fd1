import numpy as np
import pytest
from tokenizers import Tokenizer

from edgekd.data.generic import generic_split
from edgekd.data.split import Split
from edgekd.proof.retained import outcome_at_least, retained
from edgekd.proof.texts import fixed_texts, replay_texts
from edgekd.settings.task import TextClassification
from edgekd.tasks.build import build_task


def counts(right, total):
    flags = np.zeros(total, dtype=np.int64)
    flags[:right] = 1
    return np.stack([flags, np.ones(total, dtype=np.int64)], axis=1)


@pytest.fixture
def task():
    return build_task(TextClassification(), ("a", "b"))


def test_retained_of_equals_is_exactly_one(task):
    kept = retained(task, counts(90, 100), counts(90, 100))
    assert (kept.value, kept.interval, kept.rows) == (1.0, (1.0, 1.0), 100)


def test_pairing_makes_the_interval_narrow(task):
    """The student fails on one text more than the teacher: unpaired, the interval would be ten times as wide."""
    kept = retained(task, counts(899, 1000), counts(900, 1000))
    assert kept.value == pytest.approx(899 / 900)
    assert kept.interval[1] - kept.interval[0] < 0.01
    assert kept.student_interval[1] - kept.student_interval[0] > 0.03


def test_retained_covers_the_binomial_spread(task):
    kept = retained(task, counts(800, 1000), counts(1000, 1000))
    error = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert kept.interval == pytest.approx((0.8 - error, 0.8 + error), abs=0.005)


@pytest.mark.parametrize(
    ("interval", "outcome"), [((0.97, 0.99), "met"), ((0.9, 0.96), "missed"), ((0.96, 0.98), "inconclusive")]
)
def test_outcome_by_the_whole_interval(interval, outcome):
    assert outcome_at_least(interval, 0.97) == outcome


@pytest.mark.parametrize("length", [8, 33, 60])
def test_fixed_texts_have_exactly_the_length(tiny_encoder, length):
    tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    texts = fixed_texts(tokenizer, generic_split(), length)
    assert len(texts) >= 8
    assert {len(tokenizer.encode(text).ids) for text in texts} == {length}


def test_fixed_pairs_have_exactly_the_length(tiny_encoder):
    tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    pairs = Split("x", generic_split().texts, pairs=generic_split().texts)
    assert {len(tokenizer.encode(*pair).ids) for pair in fixed_texts(tokenizer, pairs, 41)} == {41}


def test_replay_takes_real_texts_and_pairs():
    split = Split("x", ["a", "b"], pairs=["c", "d"])
    assert set(replay_texts(split)) == {("a", "c"), ("b", "d")}
    assert set(replay_texts(Split("x", ["a", "b"]))) == {"a", "b"}
