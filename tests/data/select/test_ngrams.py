import math
import re
from itertools import pairwise

import numpy as np
import pytest

from edgekd.data.select.ngrams import SMOOTHING, Hasher, ImportanceWeights, distribution, kl_reduction

from .conftest import sentences


def test_words_and_pairs_of_words_within_a_text():
    hasher = Hasher(2**20)
    buckets, rows = hasher(["One two", "one\ntwo!", "three", "..."])
    assert np.bincount(rows).tolist() == [3, 5, 1, 1]
    by_row = [set(buckets[rows == i].tolist()) for i in range(4)]
    assert by_row[0] < by_row[1]
    assert not by_row[2] & by_row[1]


def test_pairs_have_an_order():
    hasher = Hasher(2**20)
    assert set(hasher(["a b"])[0]) != set(hasher(["b a"])[0])


def test_characters_are_words_in_scripts_without_spaces():
    assert len(Hasher(100)(["今日は"])[0]) == 5


def test_buckets_are_filled_evenly():
    words = [f"word{i}" for i in range(20_000)]
    counts = Hasher(100).counts(words)
    assert counts.sum() == 20_000
    assert 0.7 < counts.var() / counts.mean() < 1.4  # Poisson


def test_weights_are_the_papers_sum(banking):
    """Against the formula on n-grams that are not hashed."""
    pool = sentences("kitchen", 150) + sentences("bank", 50, seed=3)

    def grams(text):
        words = re.findall(r"\w+", text)
        return words + list(pairwise(words))

    size = 2**22
    count = [{}, {}]
    for where, texts in zip(count, (banking, pool), strict=True):
        for gram in (g for text in texts for g in grams(text)):
            where[gram] = where.get(gram, 0) + 1
    totals = [sum(c.values()) + SMOOTHING * size for c in count]
    expected = []
    for text in pool:
        p, q = ([(c.get(g, 0) + SMOOTHING) / t for g in grams(text)] for c, t in zip(count, totals, strict=True))
        expected.append(sum(math.log(a / b) for a, b in zip(p, q, strict=True)))
    hasher = Hasher(size)
    sums, means = ImportanceWeights(hasher, hasher.counts(banking), hasher.counts(pool)).score(pool)
    assert sums == pytest.approx(np.array(expected), abs=1e-6)
    assert means == pytest.approx(np.array([e / len(grams(t)) for e, t in zip(expected, pool, strict=True)]), abs=1e-6)
    assert sums[150:].min() > sums[:150].max()


def test_a_text_without_words_weighs_nothing():
    hasher = Hasher(64)
    sums, means = ImportanceWeights(hasher, np.ones(64), np.arange(64.0)).score(["", "a"])
    assert sums[0] == means[0] == 0
    assert sums[1] != 0


def test_kl_reduction():
    target, pool, same = np.array([80.0, 10, 10]), np.array([10.0, 10, 80]), np.array([800.0, 100, 100])
    p, q = distribution(target), distribution(pool)
    assert kl_reduction(target, pool, target) == pytest.approx(np.sum(p * np.log(p / q)))
    assert kl_reduction(target, pool, pool) == 0
    assert kl_reduction(target, same, pool) < 0
