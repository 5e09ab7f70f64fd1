import numpy as np
import pytest

from edgekd.data.augment.sentence import Sentence, draw, replaced
from tests.data.augment.moved import moved_tags


@pytest.mark.parametrize("text", ["turn on, please!", "  two\n\nlines\t", "(a)b \u6211love\u4f60", "", "don't 3.5"])
def test_a_text_is_given_back_exactly(text):
    sentence = Sentence.from_text(text)
    assert sentence.text == text
    assert [text[start:end] for start, end in sentence.spans] == sentence.words


def test_marks_and_tagged_words_are_told_apart():
    sentence = Sentence.from_words(["play", ",", "jazz", "now"], ["O", "O", "B-music", "O"])
    assert sentence.editable() == [0, 2, 3]
    assert sentence.outside() == [0, 3]


def test_gaps_stay_where_words_change():
    edited = replaced(Sentence.from_text("turn  on, please"), {1: "off"})
    assert edited is not None
    assert edited.sentence.text == "turn  off, please"
    assert edited.alignment == [0, 1, 2, 3]
    assert replaced(Sentence.from_text("turn on"), {1: "on"}) is None


def test_draw_keeps_to_the_ratio_and_takes_at_least_one():
    rng = np.random.default_rng(0)
    assert 0.27 < sum(len(draw(rng, range(100), 0.3)) for _ in range(50)) / 5000 < 0.33
    assert all(len(draw(rng, [4, 7], 1e-9)) == 1 for _ in range(20))
    assert draw(rng, [], 1.0) == []


def test_tags_move_with_their_words_and_stay_legal():
    tags = ["O", "B-city", "I-city", "O", "B-day"]
    assert moved_tags(tags, [3, 1, 2, 0, 4]) == ["O", "B-city", "I-city", "O", "B-day"]
    assert moved_tags(tags, [0, 1, 2, 2, 3, 4, 4]) == ["O", "B-city", "I-city", "I-city", "O", "B-day", "I-day"]
    assert moved_tags(tags, [0, 1, 3, 4]) == ["O", "B-city", "O", "B-day"]
