"""What `teach` makes of an encoder."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekd.data.read import read_data
from edgekd.distill.batches import inputs_of
from edgekd.distill.teach import _schedule, made_for_mean
from edgekd.errors import UsageError
from edgekd.models.student import StudentModel
from edgekd.models.teacher import load_body, load_teacher
from edgekd.session import teach_from
from edgekd.settings.distill import Teach, Training
from edgekd.settings.profile import override
from edgekd.tasks.build import build_task


@pytest.fixture(scope="module")
def mean_encoder(tiny_encoder, tmp_path_factory):
    """A sentence encoder, as sentence-transformers writes one."""
    folder = tmp_path_factory.mktemp("mean") / "encoder"
    shutil.copytree(tiny_encoder, folder)
    (folder / "1_Pooling").mkdir()
    settings = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder


def few(folder):
    """The data with 16 labelled texts a class."""
    data = read_data(str(folder))
    return replace(data, train=data.train.take(np.arange(64)))


@pytest.fixture(scope="module")
def taught(shared_session, mean_encoder, intent_data, fast_profile):
    data = few(intent_data)
    return data, teach_from(shared_session, str(mean_encoder), data, fast_profile)


def test_a_sentence_encoder_is_taught_on_the_mean(taught, mean_encoder):
    data, made = taught
    teacher = load_teacher(made.path)
    assert (teacher.head, teacher.task, teacher.labels) == ("sequence", "text-classification", tuple(data.labels))
    shape, weights = teacher.hosted
    assert (shape.head.pool, shape.head.activation) == ("mean", None)
    assert made.result["validation"] > 0.8
    assert isinstance(teacher.model, StudentModel)
    assert teacher.model.config.family == "bert"
    # Its weights are those that answer: nothing was lost on the way.
    task = build_task(data.task, data.labels)
    texts = task.encode(teacher.tokenizer, data.validation, 32)
    inputs = inputs_of(texts, np.arange(8), torch.device("cpu"))
    states = teacher.model(**inputs, output_hidden_states=True).hidden_states[-1]
    kept = inputs["attention_mask"].unsqueeze(-1)
    pooled = (states * kept).sum(1) / kept.sum(1)
    expected = pooled.detach().numpy() @ weights["head.output.weight"].T + weights["head.output.bias"]
    np.testing.assert_allclose(teacher.model(**inputs).logits.detach().numpy(), expected, atol=1e-5)
    assert load_body(mean_encoder).depth == teacher.depth


@pytest.mark.parametrize(("pool", "mean"), [("first", False), ("mean", True), ("auto", False)])
def test_what_is_asked_for_is_pooled(shared_session, tiny_encoder, mean_encoder, intent_data, fast_profile, pool, mean):
    # 40 texts a class are no few.
    encoder = tiny_encoder if pool == "mean" else mean_encoder
    profile = override(fast_profile, {"teach.pool": pool, "teach.training.epochs": 1, "teach.min_steps": 1})
    teacher = load_teacher(teach_from(shared_session, str(encoder), read_data(str(intent_data)), profile).path)
    assert (teacher.hosted[0].head.pool == "mean") is mean


def test_a_mean_of_tags_is_refused(shared_session, tiny_encoder, tag_data, fast_profile):
    profile = override(fast_profile, {"teach.pool": "mean"})
    with pytest.raises(UsageError, match=r"teach\.pool mean: token-classification reads every token"):
        teach_from(shared_session, str(tiny_encoder), read_data(str(tag_data)), profile)


@pytest.mark.parametrize(
    ("settings", "mean"),
    [
        ({"pooling_mode_mean_tokens": True}, True), ({"pooling_mode": "mean"}, True),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, False),
        ({"pooling_mode_cls_token": True}, False), ([], False), (None, False),
    ],
)  # fmt: skip
def test_what_an_encoder_was_made_for(tmp_path, settings, mean):
    if settings is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert made_for_mean(tmp_path) is mean


def test_few_texts_make_enough_steps_and_many_as_many_as_asked():
    spec = Teach(training=Training(epochs=4, learning_rate=1e-4, batch_size=32, head_rate=10), min_steps=150)
    few, many = _schedule(spec, 70, probed=False), _schedule(spec, 15_000, probed=True)
    assert (few.epochs, few.head_rate) == (50, 10)
    assert (many.epochs, many.head_rate, many.freeze_words) == (4, 1, True)
    assert not few.freeze_words


def test_an_adapted_encoder_is_still_made_for_the_mean(shared_session, mean_encoder, intent_data, fast_profile):
    adapted = {"name": "mlm", "training": {"epochs": 1, "learning_rate": 1e-4}}
    profile = override(fast_profile, {"teach.adapt": adapted, "teach.training.epochs": 1, "teach.min_steps": 1})
    made = teach_from(shared_session, str(mean_encoder), few(intent_data), profile)
    assert load_teacher(made.path).hosted[0].head.pool == "mean"
