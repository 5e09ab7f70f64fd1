"""What the teacher says of a split, in the precision that is asked for."""

import numpy as np
import pytest

from edgekd.data.read import read_data
from edgekd.distill.label import label, logits_of
from edgekd.models.teacher import load_teacher
from edgekd.store import Store
from edgekd.tasks.build import build_task


@pytest.fixture(scope="module")
def texts(tiny_teacher, intent_data):
    teacher, data = load_teacher(tiny_teacher), read_data(str(intent_data))
    return teacher, build_task(data.task, data.labels).encode(teacher.tokenizer, data.test, 32)


def test_bf16_is_near_and_kept_apart(tmp_path, engine, texts):
    teacher, encodings = texts
    store = Store(tmp_path)
    whole = label(store, engine, teacher, "t", encodings, "test")
    fast = label(store, engine, teacher, "t", encodings, "test", precision="bf16")
    assert fast.id != whole.id
    expected, found = logits_of(whole), logits_of(fast)
    assert found.dtype == expected.dtype == np.float32
    assert 0 < abs(found - expected).max() < 0.05 * expected.std()
    assert label(store, engine, teacher, "t", encodings, "test").reused
