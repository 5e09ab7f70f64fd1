import numpy as np
import pytest

from edgekd.data.select import cascade
from edgekd.data.select.cascade import select
from edgekd.data.select.pool import Chunk
from edgekd.errors import DataError

from .conftest import embed, sentences


def pool_of(parts, chunk=64):
    return [Chunk(name, texts[i : i + chunk]) for name, texts in parts.items() for i in range(0, len(texts), chunk)]


@pytest.fixture
def parts():
    return {
        "kitchen.txt": sentences("kitchen", 900, seed=1),
        "bank.txt": sentences("bank", 300, seed=2),
        "travel.txt": sentences("travel", 900, seed=3),
    }


@pytest.mark.parametrize("method", ["cascade", "ngrams", "clusters"])
def test_what_is_like_the_target_is_chosen(banking, parts, method):
    found = select(pool_of(parts), banking, 100, method=method, embed=embed)
    assert len(found.texts) == len(set(found.texts)) == 100
    assert found.summary.sources == {"bank.txt": 100}
    assert found.summary.pool_size == 2100
    assert (np.diff(found.scores) <= 1e-9).all()
    assert not set(found.texts) & set(banking)
    assert found.summary.kl_reduction > 0.5
    for likeness in found.summary.likeness:
        assert likeness.chosen_mean > likeness.pool_mean
        assert sum(likeness.chosen) == 100
        assert sum(likeness.pool) == 2000
        assert len(likeness.edges) == len(likeness.pool) + 1
    assert {text for text, _ in found.summary.chosen_examples} <= set(found.texts)
    refused = {text for text, _ in found.summary.refused_examples}
    assert len(refused) == 10
    assert not refused & set(found.texts)


def test_random_is_the_control(banking, parts):
    found = select(pool_of(parts), banking, 600, method="random")
    assert found.summary.sources["kitchen.txt"] > 150
    assert found.summary.sources["travel.txt"] > 150
    assert (
        abs(found.summary.kl_reduction) < 0.2
    )  # what is near-equal to the target is left out of the choice, not of the pool
    assert [likeness.name for likeness in found.summary.likeness] == ["n-grams"]
    assert abs(found.summary.likeness[0].chosen_mean - found.summary.likeness[0].pool_mean) < 0.1


@pytest.mark.parametrize("method", ["cascade", "ngrams", "clusters", "random"])
def test_seed_decides_and_chunks_do_not(banking, parts, method):
    def run(chunk, seed):
        return select(pool_of(parts, chunk), banking, 50, method=method, embed=embed, seed=seed).texts

    assert run(64, 0) == run(37, 0)
    if method != "clusters":
        assert run(64, 0) != run(64, 1)


def test_without_noise_the_heaviest_are_taken(banking, parts):
    seeds = [select(pool_of(parts), banking, 50, method="ngrams", noise=False, seed=s).texts for s in (0, 1)]
    assert seeds[0] == seeds[1]


def test_the_choice_is_as_long_as_the_target(parts):
    target = sentences("bank", 100, seed=9, words=(3, 4))
    parts["bank.txt"] += sentences("bank", 300, seed=4, words=(7, 9))
    chosen = select(pool_of(parts), target, 60, method="cascade", embed=embed).texts
    unmatched = select(pool_of(parts), target, 60, method="ngrams", noise=False).texts
    words = [np.mean([len(text.split()) for text in texts]) for texts in (target, chosen, unmatched)]
    assert abs(words[1] - words[0]) < 0.5
    assert words[2] - words[0] > 1


def test_nothing_near_equal_to_target_or_held_out(banking, parts):
    secret = parts["bank.txt"][:50]
    parts["bank.txt"] = [text.capitalize() + "." for text in [*banking, *parts["bank.txt"]]]
    found = select(pool_of(parts), banking, 400, method="cascade", embed=embed, held_out=secret)
    chosen = {text.lower().rstrip(".") for text in found.texts}
    assert not chosen & {*banking, *secret}
    leaks, repeated = found.notes[-2:]
    assert "validation or test" in leaks
    assert int(leaks.split()[0]) >= 50
    assert "target text" in repeated


@pytest.mark.parametrize("method", ["cascade", "ngrams", "clusters", "random"])
def test_a_pool_smaller_than_asked_gives_all_and_says_so(banking, method):
    texts = sentences("travel", 30)
    found = select([Chunk("a", [*texts, *texts])], banking, 1000, method=method, embed=embed)
    assert sorted(found.texts) <= sorted(texts)
    assert 20 < len(found.texts) <= 30
    assert found.notes[0].startswith(f"the pool has fewer texts than asked for: {len(found.texts)} of 1000 chosen")


def test_nothing_new_or_nothing_at_all(banking):
    with pytest.raises(DataError, match="pool of generic text is empty"):
        select([], banking, 5, method="random")
    with pytest.raises(DataError, match="none of the pool's 200 texts is new"):
        select([Chunk("a", banking)], banking, 5, method="ngrams")
    with pytest.raises(DataError, match="no target text"):
        select([Chunk("a", ["x"])], [], 5, method="random")


def test_misuse(banking):
    with pytest.raises(TypeError, match="read twice"):
        select(iter([Chunk("a", ["x"])]), banking, 5, method="random")
    with pytest.raises(ValueError, match="needs embed"):
        select([Chunk("a", ["x"])], banking, 5, method="cascade")


def test_one_text(banking):
    found = select([Chunk("a", ["only one"])], banking, 1, embed=embed)
    assert found.texts == ["only one"]
    assert found.summary.refused_examples == ()


def test_a_bounded_sample_of_the_pool_is_enough(banking, parts, monkeypatch):
    monkeypatch.setattr(cascade, "SAMPLE", 300)
    found = select(pool_of(parts), banking, 100, method="ngrams")
    assert found.summary.sources == {"bank.txt": 100}
