import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.data.augment.apply import Augmented
from edgekd.data.read import read_data
from edgekd.data.split import Split, TaskData
from edgekd.errors import UsageError
from edgekd.inputs.gather import (
    _require_one_scheme,
    _same_answers,
    prepare,
    resolve_length,
    round_up_length,
    unknown_tokens,
)
from edgekd.models.teacher import load_teacher
from edgekd.settings.distill import Stage
from edgekd.settings.profile import override
from edgekd.settings.task import JointIntentSlots, MultiLabelClassification, TextClassification, TokenClassification
from edgekd.tasks.build import build_task


def test_length_covers_the_long_tail_and_is_a_multiple_of_eight():
    lengths = np.concatenate([np.full(9989, 10), np.full(11, 33)])
    assert round_up_length(lengths) == 40
    assert round_up_length(np.concatenate([np.full(9999, 10), [500]])) == 16


def test_auto_length_is_capped_by_the_teacher(tiny_teacher, intent_data, fast_profile, tmp_path):
    teacher, data = load_teacher(tiny_teacher), read_data(intent_data)
    assert resolve_length(fast_profile, teacher, data) <= 24
    long = tmp_path / "long"
    shutil.copytree(intent_data, long)
    with (long / "unlabeled.jsonl").open("a") as handle:
        for i in range(9):
            handle.write(f'{{"text": "{"lamp " * 100}{i}"}}\n')
    assert resolve_length(fast_profile, teacher, read_data(long)) == teacher.max_length == 64


def test_asked_length_is_taken_or_refused(tiny_teacher, intent_data, fast_profile):
    teacher, data = load_teacher(tiny_teacher), read_data(intent_data)
    assert resolve_length(override(fast_profile, {"workload.max_length": 12}), teacher, data) == 12
    with pytest.raises(UsageError, match="--max-length 65: the teacher takes at most 64"):
        resolve_length(override(fast_profile, {"workload.max_length": 65}), teacher, data)


def test_text_that_the_tokenizer_does_not_know_is_warned_of(tiny_teacher):
    teacher = load_teacher(tiny_teacher)
    task = build_task(TextClassification(), ("a", "b"))
    known = ["turn the lamp on"]
    said = unknown_tokens(teacher.tokenizer, task.encode(teacher.tokenizer, Split("x", [*known, "привет мир"] * 2), 16))
    assert "most of 2 texts" in said
    assert unknown_tokens(teacher.tokenizer, task.encode(teacher.tokenizer, Split("x", known), 16)) == ""


def test_task_and_teacher_must_match(shared_session, tiny_teacher, tag_data, fast_profile):
    with pytest.raises((UsageError,), match=r"teacher"):
        prepare(
            shared_session.store, shared_session.engine, fast_profile, load_teacher(tiny_teacher), read_data(tag_data)
        )


def test_teacher_labels_everything_once(shared_session, tiny_teacher, intent_data, fast_profile, monkeypatch):
    teacher, data = load_teacher(tiny_teacher), read_data(intent_data)
    first = prepare(shared_session.store, shared_session.engine, fast_profile, teacher, data)
    monkeypatch.setattr("edgekd.distill.label.predict_rows", lambda *a, **k: pytest.fail("labelled again"))
    again = prepare(shared_session.store, shared_session.engine, fast_profile, teacher, data)
    assert np.array_equal(first.rows, again.rows)
    assert first.rows.shape == (320, 4)
    labelled = first.lesson().for_stage(Stage(data="labelled"))
    assert first.lesson().id == again.lesson().id != labelled.id
    assert (first.lesson().targets == -100).sum() == 160


def test_consistency_compares_all_labels_of_a_text():
    task = build_task(MultiLabelClassification(), ("a", "b"))
    rows = np.array([[2.0, 1.0], [2.0, -1.0], [3.0, -1.0], [1.0, 2.0]])
    made = Augmented(Split("x", ["n", "m"]), np.array([0, 0]), ["swap", "swap"], 0)
    assert _same_answers(task, task.answers(task.decide(rows), None), rows, made).tolist() == [False, True]


def test_consistency_compares_intent_and_moved_tags():
    task = build_task(JointIntentSlots(), ("go", "stop", "O", "B-x", "I-x"))
    answers = [["go", "B-x", "O"], ["go", "O", "B-x"], ["stop", "O", "B-x"], ["go", "B-x", "O"]]
    made = Augmented(Split("x", ["n"] * 3), np.array([0, 0, 0]), ["swap"] * 3, 0, [[1, 0], [1, 0], [1, 0]])
    assert _same_answers(task, answers, np.zeros((4, 5)), made).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ("O B-x I-x L-x U-x", "O B-x I-x", "the data's tags are BIO, the teacher's are BILOU"),
        ("O B-x I-x", "O x", "the data's tags are IO, the teacher's are BIO"),
        ("O B_x I_x", "O B_x I_x", "id2label of its config.json: tags such as 'B_x'"),
    ],
)
def test_tags_of_two_schemes_are_refused(theirs, ours, message):
    teacher = SimpleNamespace(folder="t", labels=tuple(theirs.split()), head="token")
    with pytest.raises(UsageError, match=message):
        _require_one_scheme(teacher, TaskData(TokenClassification(), tuple(ours.split())))


@pytest.mark.parametrize("ours", ["O I-x", "O B-x I-x", "O B-x", ""])
def test_tags_of_one_scheme_go_together(ours):
    teacher = SimpleNamespace(folder="t", labels=("O", "B-x", "I-x"), head="token")
    assert _require_one_scheme(teacher, TaskData(TokenClassification(), tuple(ours.split()))) is None
