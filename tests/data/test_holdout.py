from collections import Counter

import numpy as np
import pytest

from edgekd.data.holdout import held_out_share, hold_out
from edgekd.data.split import Split
from edgekd.errors import DataError


def split(count, labels="ab"):
    return Split("train", [f"text {i}" for i in range(count)], labels=[labels[i % len(labels)] for i in range(count)])


def test_shares():
    assert held_out_share(100) == 0.2
    assert held_out_share(800) == 100 / 800
    assert held_out_share(20_000) == 0.1
    assert held_out_share(200_000) == 5000 / 200_000


def test_parts_are_stratified_disjoint_and_noted():
    rest, held, notes = hold_out(split(2000, "aaab"), ["test", "validation"], 0)
    for name in ("test", "validation"):
        assert Counter(held[name].labels) == {"a": 150, "b": 50}
        assert held[name].name == name
    sets = [set(part.texts) for part in (rest, *held.values())]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 2000
    assert notes[0] == (
        "no test given: 200 of 2000 texts of train held out by a hash of their content, stratified by label (seed 0)"
    )


def test_the_order_of_rows_does_not_matter_and_the_seed_does():
    whole = split(300)
    shuffled = whole.take(np.random.default_rng(1).permutation(300))
    _, first, _ = hold_out(whole, ["test"], 0)
    _, again, _ = hold_out(shuffled, ["test"], 0)
    _, other, _ = hold_out(whole, ["test"], 1)
    assert set(first["test"].texts) == set(again["test"].texts) != set(other["test"].texts)


def test_equal_texts_stay_together():
    twice = split(200).concat(split(200))
    rest, held, _ = hold_out(twice, ["test", "validation"], 0)
    assert not set(held["test"].texts) & set(rest.texts)
    assert not set(held["test"].texts) & set(held["validation"].texts)


def test_what_train_would_lack_is_not_taken():
    tags = [["O"]] * 99 + [["B-rare"]]
    words = [[f"w{i}"] for i in range(100)]
    for seed in range(20):
        whole = Split("train", [word[0] for word in words], words=words, tags=tags)
        rest, held, _ = hold_out(whole, ["test", "validation"], seed)
        assert rest.classes() == {"O", "B-rare"}
        assert len(rest) + len(held["test"]) + len(held["validation"]) == 100


def test_too_few_texts_are_an_error():
    with pytest.raises(DataError, match="train: 2 texts are too few to make test from; give test"):
        hold_out(split(2), ["test"], 0)
