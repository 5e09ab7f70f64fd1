import numpy as np
import pytest

from edgekd.data.augment.apply import augment
from edgekd.data.split import Split
from edgekd.errors import UsageError
from edgekd.runtime.answers import bio_spans
from edgekd.settings.augment import BackTranslation, Casing, Delete, MaskFill, SlotSwap, Swap, Typos
from tests.data.augment.conftest import legal, tags, texts
from tests.data.augment.moved import moved_tags

SIMPLE = (Swap(), Delete(), Typos(ratio=0.3), Casing())


def rows(made):
    return list(zip(made.split.keys(), made.parents.tolist(), made.policies, strict=True))


def test_new_texts_with_provenance_and_no_labels():
    split = texts()
    made = augment(split, SIMPLE, seed=7, copies=3)
    assert made.split.name == "augmented"
    assert made.split.labels is None
    assert made.seed == 7
    assert set(made.policies) == {"swap", "delete", "typos", "casing"}
    assert len(made) == len(made.parents) == len(made.policies)
    assert made.parents.dtype == np.int64
    for text, parent, policy in zip(made.split.texts, made.parents, made.policies, strict=True):
        original = split.texts[parent]
        assert text != original
        if policy == "swap":
            assert sorted(text.split()) == sorted(original.split())
        if policy == "casing":
            assert text.lower() == original.lower()
        if policy == "typos":
            assert len(text) == len(original)
        if policy == "delete":
            rest = iter(original.split())
            assert all(word in rest for word in text.split())
            assert 0 < len(text) < len(original)
    count = made.policies.count("casing")
    assert 60 < count <= 80
    known = f"0 could not be changed, {120 - count} were known already"
    assert made.notes[3] == f"casing: {count} new texts from 40 x 3; {known}"


def test_no_text_is_an_original_or_made_twice_or_held_out():
    split = texts()
    free = augment(split, SIMPLE, seed=0, copies=8)
    assert len(set(free.split.texts)) == len(free)
    assert not set(free.split.texts) & set(split.texts)
    held_out = Split("test", [f" {text} " for text in free.split.texts[:5]], labels=["lights"] * 5)
    without = augment(split, SIMPLE, seed=0, copies=8, exclude=[held_out])
    assert set(free.split.texts) - set(without.split.texts) == set(free.split.texts[:5])


def test_white_space_alone_makes_no_new_text():
    split = Split("train", ["turn  on", "on turn"])
    assert len(augment(split, [Swap()], seed=0, copies=4)) == 0


def test_the_seed_decides_and_other_rows_and_policies_do_not():
    split = texts()
    made = augment(split, SIMPLE, seed=1, copies=2)
    assert rows(augment(split, SIMPLE, seed=1, copies=2)) == rows(made)
    assert rows(augment(split, SIMPLE, seed=2, copies=2)) != rows(made)
    part = augment(split.take(range(10, 20)), SIMPLE[::-1], seed=1, copies=2)
    mine = {key for key, parent, _ in rows(made) if 10 <= parent < 20}
    assert {key for key, _, _ in rows(part)} == mine


def test_a_policy_may_ask_for_its_own_number_of_copies():
    made = augment(texts(), [Typos(ratio=1.0, copies=5), Swap()], seed=0, copies=1)
    counts = {name: made.policies.count(name) for name in ("typos", "swap")}
    assert 150 < counts["typos"] <= 200
    assert 30 < counts["swap"] <= 40


def test_chunks_do_not_change_the_result(monkeypatch):
    whole = augment(texts(), SIMPLE, seed=0, copies=3)
    monkeypatch.setattr("edgekd.data.augment.apply._JOBS", 7)
    assert rows(augment(texts(), SIMPLE, seed=0, copies=3)) == rows(whole)


def test_token_tasks_keep_every_word_by_its_tag(masked_lm):
    split = tags()
    specs = [*SIMPLE, SlotSwap(), MaskFill(masked_lm=str(masked_lm))]
    made = augment(split, specs, seed=0, copies=3)
    assert set(made.policies) == {spec.name for spec in specs}
    assert made.split.tags is None
    assert made.split.texts == [" ".join(words) for words in made.split.words]
    for words, alignment, parent, policy in zip(
        made.split.words, made.alignment, made.parents, made.policies, strict=True
    ):
        moved = moved_tags(split.tags[parent], alignment)
        assert len(moved) == len(words)
        assert legal(moved)
        spans = [words[start:end] for _, start, end in bio_spans(moved)]
        original = [split.words[parent][start:end] for _, start, end in bio_spans(split.tags[parent])]
        assert len(spans) == len(original)
        if policy in ("swap", "delete", "mask_fill"):
            assert spans == original
        if policy == "slot_swap":
            assert spans != original


def test_what_would_break_alignment_is_refused_by_name():
    tagged, plain = tags(), texts()
    untagged = tagged.without_labels()
    translation = BackTranslation(there="a", back="b")
    for split, spec in (
        (tagged, translation),
        (plain, SlotSwap()),
        (untagged, SlotSwap()),
        (untagged, Swap()),
        (untagged, Delete()),
    ):
        with pytest.raises(UsageError, match=f"augmentation {spec.name}: .*leave it out"):
            augment(split, [Casing(), spec], seed=0)
    made = augment(untagged, [Typos(), Casing()], seed=0)
    assert all(len(a) == len(untagged.words[p]) for a, p in zip(made.alignment, made.parents, strict=True))


def test_pairs_are_refused_unless_allowed():
    split = texts()
    pairs = Split("train", split.texts, split.texts[::-1])
    with pytest.raises(UsageError, match="augmentation swap: train holds pairs"):
        augment(pairs, [Swap()], seed=0)
    made = augment(pairs, [Swap()], seed=0, copies=4, allow_pairs=True)
    sides = [
        (first != pairs.texts[parent], second != pairs.pairs[parent])
        for first, second, parent in zip(made.split.texts, made.split.pairs, made.parents, strict=True)
    ]
    assert set(sides) == {(True, False), (False, True)}
    assert 0.3 < np.mean([first for first, _ in sides]) < 0.7


def test_models_make_texts_too(masked_lm, marian):
    specs = [
        MaskFill(masked_lm=str(masked_lm), copies=3),
        BackTranslation(there=str(marian), back=str(marian)),
    ]
    made = augment(texts(12), specs, seed=0)
    assert rows(made) == rows(augment(texts(12), specs, seed=0))
    assert made.policies.count("mask_fill") > 24
    assert made.policies.count("back_translation") > 3


def test_progress_and_an_empty_split():
    made = augment(texts(0), SIMPLE, seed=0)
    assert (len(made), len(made.notes)) == (0, 4)
    assert len(augment(texts(), [], seed=0)) == 0


def test_keep_drops_rows_with_all_they_have():
    made = augment(tags(), [Typos(), Swap()], seed=0)
    mask = np.arange(len(made)) % 3 == 0
    kept = made.keep(mask, "the teacher changed its mind")
    assert kept.split.texts == made.split.texts[::3]
    assert kept.split.words == made.split.words[::3]
    assert kept.parents.tolist() == made.parents[::3].tolist()
    assert kept.policies == made.policies[::3]
    assert kept.alignment == made.alignment[::3]
    assert kept.notes[-1] == f"{(~mask).sum()} of {len(made)} augmented texts left out: the teacher changed its mind"
