from collections import Counter

import numpy as np

from edgekd.data.augment.sentence import Job, Sentence
from edgekd.data.augment.words import delete, swap
from edgekd.settings.augment import Delete, Swap
from tests.data.augment.moved import moved_tags

TEXT = Sentence.from_text("please turn the bright lamp off, now!")
TAGGED = Sentence.from_words(
    ["play", "loud", "jazz", "in", "the", "big", "room"], ["O", "B-music", "I-music", "O", "O", "B-place", "I-place"]
)


def job(sentence, seed):
    return Job(sentence, np.random.default_rng(seed))


def test_swap_moves_words_and_leaves_marks_and_gaps():
    for seed in range(30):
        edited = swap(Swap(), job(TEXT, seed))
        assert edited is not None
        assert Counter(edited.sentence.words) == Counter(TEXT.words)
        assert sum(a != b for a, b in zip(edited.sentence.words, TEXT.words, strict=True)) == 2
        assert edited.sentence.gaps == TEXT.gaps
        assert edited.sentence.text[-1] == "!"


def test_swap_takes_its_share_of_words():
    long = Sentence.from_text(" ".join(f"w{i}" for i in range(200)))
    moved = [swap(Swap(ratio=0.1), job(long, seed)).alignment for seed in range(20)]
    # 20 exchanges move at most 40 words, a few of them twice.
    assert all(30 <= sum(i != at for i, at in enumerate(order)) <= 40 for order in moved)


def test_only_words_tagged_o_move_or_go():
    for policy, spec in ((swap, Swap(ratio=1.0)), (delete, Delete(ratio=0.5))):
        for seed in range(30):
            edited = policy(spec, job(TAGGED, seed))
            if edited is None:
                continue
            words = edited.sentence.words
            assert words == [TAGGED.words[i] for i in edited.alignment]
            moved = moved_tags(TAGGED.tags, edited.alignment)
            assert [w for w, tag in zip(words, moved, strict=True) if tag != "O"] == ["loud", "jazz", "big", "room"]
            assert words[words.index("loud") + 1] == "jazz"
            assert words[words.index("big") + 1] == "room"


def test_nothing_to_swap_or_delete():
    assert swap(Swap(), job(Sentence.from_text("lamp!"), 0)) is None
    assert delete(Delete(), job(Sentence.from_text("lamp!"), 0)) is None
    assert swap(Swap(), job(Sentence.from_text("lamp lamp"), 0)) is None
    assert delete(Delete(ratio=1.0), job(Sentence.from_words(["loud", "jazz"], ["B-m", "I-m"]), 0)) is None
    assert delete(Delete(), job(Sentence.from_text(""), 0)) is None


def test_delete_keeps_one_word():
    for seed in range(20):
        edited = delete(Delete(ratio=1.0), job(TEXT, seed))
        assert len([word for word in edited.sentence.words if word.isalnum()]) == 1


def test_delete_takes_its_share_and_closes_the_gap():
    long = Sentence.from_text(" ".join(f"w{i}" for i in range(500)))
    assert 430 < np.mean([len(delete(Delete(), job(long, seed)).sentence.words) for seed in range(20)]) < 470
    made = {delete(Delete(), job(Sentence.from_text(" turn on, please "), seed)).sentence.text for seed in range(40)}
    assert {" on, please ", " turn, please ", " turn on, "} <= made
    assert all("  " not in text for text in made)
