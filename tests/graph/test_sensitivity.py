from __future__ import annotations

import pytest

from edgekd.graph.sensitivity import MOST_KEPT, find_repair, most_evaluations
from edgekd.progress import Progress

NODES = [f"n{i}" for i in range(20)]


def search(needed, limit=0.5, nodes=NODES):
    """Each of `needed` costs a point unless it is kept; the errors rank them by their order."""
    costs = {name: 10.0 - i for i, name in enumerate(needed)}
    seen = []

    def drop(kept):
        seen.append(tuple(kept))
        return 0.1 + sum(1.0 for name in needed if name not in kept)

    with Progress().bar("", 1) as bar:
        found = find_repair(nodes, lambda node: costs.get(node, 0.1), drop, limit, bar)
    assert found.evaluations == len(nodes) + len(seen) <= most_evaluations(nodes)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 8])
def test_the_fewest_of_the_worst(count):
    needed = NODES[5 : 5 + count]
    found = search(needed)
    assert found.kept == tuple(needed)
    assert found.repaired
    assert found.drop == pytest.approx(0.1)


def test_too_many_to_blame():
    found = search(NODES[: MOST_KEPT + 1])
    assert not found.repaired
    assert len(found.kept) == MOST_KEPT
    assert found.drop == pytest.approx(1.1)


def test_a_drop_at_the_limit_is_within_it():
    assert search(NODES[:1], limit=0.1).repaired


def test_never_all_nodes():
    found = search(["a", "b", "c"], nodes=["a", "b", "c"])
    assert not found.repaired
    assert len(found.kept) == 2


def test_a_single_node_cannot_be_spared():
    found = search(["a"], nodes=["a"])
    assert (found.kept, found.repaired) == ((), False)
