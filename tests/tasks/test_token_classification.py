import numpy as np
import pytest

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.settings.task import TokenClassification
from edgekd.tasks.token_classification import TokenClassificationTask

TASK = TokenClassificationTask(TokenClassification(), ["O", "B-x", "I-x", "B-y"])
WORDS = [["playing", "\u200b", "jazz"], ["paris"]]
TAGS = [["B-x", "I-x", "O"], ["B-y"]]
SPLIT = Split("test", [" ".join(words) for words in WORDS], words=WORDS, tags=TAGS)


def test_targets_are_read_on_first_pieces(tokenizer):
    encodings = TASK.encode(tokenizer, SPLIT, 16)
    assert encodings.answer_positions.tolist() == [1, 3, 1]
    assert TASK.target_rows(SPLIT, encodings).tolist() == [1, 0, 3]


def test_words_without_a_row_are_answered_o(tokenizer):
    encodings = TASK.encode(tokenizer, SPLIT, 16)
    assert TASK.answers([1, 2, 3], encodings) == [["B-x", "O", "I-x"], ["B-y"]]


def test_words_lost_to_truncation_are_answered_o(tokenizer):
    split = Split("test", ["jazz in paris"], words=[["jazz", "in", "paris"]], tags=[["O", "O", "B-x"]])
    encodings = TASK.encode(tokenizer, split, 4)
    assert TASK.target_rows(split, encodings).tolist() == [0, 0]
    predicted = TASK.answers([1, 0], encodings)
    assert predicted == [["B-x", "O", "O"]]
    # The lost span counts as missed, so a short max_length costs what it should.
    assert TASK.counts(TASK.gold(split), predicted).tolist() == [[0, 1, 1]]


def test_span_f1_by_hand():
    gold = [
        ["B-x", "I-x", "O", "B-y"],  # x(0,2) y(3,4)
        ["O", "O"],
        ["B-x", "B-x"],  # x(0,1) x(1,2)
    ]
    predicted = [
        ["B-x", "I-x", "O", "B-x"],  # x right, the other of a wrong type
        ["O", "I-x"],  # a stray I- is a span, and wrong
        ["B-x", "I-x"],  # one span, of the wrong extent
    ]
    counts = TASK.counts(gold, predicted)
    assert counts.tolist() == [[1, 1, 1], [0, 1, 0], [0, 1, 2]]
    # precision 1/4, recall 1/4
    assert TASK.score(counts) == pytest.approx(0.25)
    # precision 1/1, recall 1/3
    assert TASK.score(np.array([[1, 0, 2]])) == pytest.approx(0.5)
    assert TASK.score(np.array([[1, 2, 0]])) == pytest.approx(0.5)
    assert TASK.metric(gold, gold) == 1.0
    assert TASK.metric([["O"]], [["O"]]) == 0.0


def test_what_is_not_known_is_an_error(tokenizer):
    with pytest.raises(DataError, match="train: token classification needs the words"):
        TASK.encode(tokenizer, Split("train", ["jazz"]), 8)
    encodings = TASK.encode(tokenizer, SPLIT, 8)
    with pytest.raises(DataError, match="test: it has no tags"):
        TASK.target_rows(SPLIT.without_labels(), encodings)
    wrong = Split("test", SPLIT.texts, words=WORDS, tags=[["B-z", "O", "O"], ["O"]])
    with pytest.raises(DataError, match='label "B-z"'):
        TASK.target_rows(wrong, encodings)
