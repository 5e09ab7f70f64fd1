import numpy as np
import pytest

from edgekd.data.select import clusters
from edgekd.data.select.clusters import TargetClusters, choose, kmeans, nearest, unit

from .conftest import embed, sentences


def blobs(centres, each, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([c + 0.05 * rng.standard_normal((each, len(c))) for c in np.array(centres, float)])


def test_kmeans_finds_directions_whatever_the_lengths():
    centres = unit(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [-1, 0, 0, 1]]))
    vectors = blobs(centres, 50) * np.random.default_rng(1).uniform(0.5, 9, (200, 1))
    found = kmeans(vectors, 4, seed=3)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert (centres @ found.T).max(axis=1).min() > 0.99
    assert np.array_equal(found, kmeans(vectors, 4, seed=3))


def test_kmeans_lowers_the_cost():
    vectors = unit(np.random.default_rng(0).standard_normal((400, 8)))
    cost = [1 - nearest(vectors, kmeans(vectors, 6, seed=0, iterations=i))[0].mean() for i in (0, 1, 25)]
    assert cost[0] > cost[1] > cost[2]


def test_kmeans_with_fewer_different_vectors_than_clusters():
    vectors = np.array([[1.0, 0], [2, 0], [0, 1], [0, 3]])
    assert sorted(kmeans(vectors, 8, seed=0).tolist()) == [[0, 1], [1, 0]]
    assert len(kmeans(np.zeros((3, 2)), 2, seed=0)) <= 2


def test_scores_do_not_depend_on_order_or_chunks(monkeypatch):
    target, pool = sentences("bank", 40), sentences("kitchen", 30) + sentences("bank", 30, seed=5)
    found = TargetClusters(target, embed, 3, seed=0).score(pool)
    monkeypatch.setattr(clusters, "TEXTS_AT_ONCE", 7)
    again = TargetClusters(target, embed, 3, seed=0).score(pool[::-1])[::-1]
    assert found == pytest.approx(again, abs=1e-6)
    assert found[30:].min() > found[:30].max()


def test_clusters_follow_the_number_of_texts_unless_given():
    target = sentences("bank", 60) + sentences("kitchen", 60)

    def wide(texts):
        return np.array([[hash(t) % 997, len(t), t.count("e") ** 2, t.count("a")] for t in texts])

    assert len(TargetClusters(target, wide, None, seed=0).centroids) == 8
    assert len(TargetClusters(target, wide, 3, seed=0).centroids) == 3


def test_the_choice_is_as_long_as_the_target():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 20_000)
    scores = lengths / 100 + rng.random(20_000)  # the longer the better
    target = rng.integers(20, 60, 500)
    rows = choose(scores, lengths, target, 1000)
    assert len(set(rows.tolist())) == 1000
    assert (np.diff(scores[rows]) <= 0).all()
    assert np.quantile(lengths[rows], [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(target, [0.1, 0.5, 0.9]), abs=5)


def test_what_a_length_lacks_the_best_of_the_rest_fill():
    scores, lengths = np.array([1.0, 2, 3, 4]), np.array([5, 5, 90, 90])
    assert choose(scores, lengths, np.array([5, 5, 5]), 3).tolist() == [3, 1, 0]
    assert choose(scores, lengths, np.array([5, 5, 5]), 2).tolist() == [1, 0]
    assert choose(scores, lengths, np.array([5, 9]), 9).tolist() == [3, 2, 1, 0]
