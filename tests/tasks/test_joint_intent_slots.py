import numpy as np
import pytest

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.runtime.encodings import MASKED
from edgekd.settings.task import JointIntentSlots
from edgekd.tasks.joint_intent_slots import JointIntentSlotsTask

TASK = JointIntentSlotsTask(JointIntentSlots(), ["fly", "play", "O", "B-city", "I-city"])
SPLIT = Split(
    "train", ["play jazz in paris", "jazz"], words=[["play", "jazz", "in", "paris"], ["jazz"]],
    labels=["play", "fly"], tags=[["O", "O", "O", "B-city"], ["O"]],
)  # fmt: skip


def test_a_row_for_the_intent_and_one_a_word(tokenizer):
    encodings = TASK.encode(tokenizer, SPLIT, 8)
    assert encodings.rows.tolist() == [0, 5, 7]
    assert encodings.answer_positions.tolist() == [0, 1, 2, 3, 4, 0, 1]
    targets = TASK.target_rows(SPLIT, encodings)
    assert targets.tolist() == [1, 2, 2, 2, 3, 0, 2]
    assert TASK.answers(targets, encodings) == TASK.gold(SPLIT) == [["play", "O", "O", "O", "B-city"], ["fly", "O"]]
    assert TASK.no_targets(3).tolist() == [-100] * 3
    assert TASK.sizes == (2, 3)


def test_a_row_is_decided_among_its_own_columns():
    rows = np.array([[-5.0, -3.0, MASKED, MASKED, MASKED], [MASKED, MASKED, -9.0, -8.0, -8.5]])
    assert TASK.decide(rows).tolist() == [1, 3]


def test_words_cut_off_are_outside(tokenizer):
    encodings = TASK.encode(tokenizer, SPLIT, 4)
    assert TASK.answers(TASK.target_rows(SPLIT, encodings), encodings)[0] == ["play", "O", "O", "O", "O"]


def test_semantic_error_rate_by_hand():
    gold = [["fly", "B-city", "I-city", "O"], ["play", "O", "B-city", "O"], ["play", "O", "O", "O"]]
    given = [["fly", "B-city", "O", "O"], ["fly", "O", "B-city", "O"], ["play", "O", "B-city", "B-city"]]
    counts = TASK.counts(gold, given)
    # A substitution; a wrong intent; two insertions: 4 errors of 2 spans and 3 intents.
    assert counts.tolist() == [[1, 0, 1, 1, 1, 1], [0, 1, 0, 0, 1, 1], [1, 0, 2, 0, 2, 1]]
    assert TASK.score(counts) == pytest.approx(1 - 4 / 5)
    assert TASK.score(counts, np.array([2, 0, 1])) == pytest.approx(1 - 4 / 5)
    parts = TASK.parts(counts)
    assert parts == pytest.approx({"intent accuracy": 2 / 3, "slot F1": 2 / 6, "semantic error rate": 4 / 5})
    assert TASK.metric(gold, gold) == 1.0


def test_what_is_not_known_is_an_error(tokenizer):
    with pytest.raises(DataError, match="train: slot filling needs the words"):
        TASK.encode(tokenizer, Split("train", ["jazz"]), 8)
    with pytest.raises(DataError, match="no labels, or no tags"):
        TASK.gold(Split("test", ["jazz"], words=[["jazz"]], tags=[["O"]]))
