"""Evidence of bundles made by hand: every kind of task, and the arithmetic of the ratio."""

import json
import shutil

import numpy as np
import pytest

from edgekd.graph.writer import random_weights, save_model, write_student
from edgekd.latency.targets.build import build_target
from edgekd.progress import Progress
from edgekd.proof.evidence import Ratio, answers, read_evidence, regression, replay, write_evidence
from edgekd.settings.shape import EncoderShape, HeadShape
from edgekd.settings.target import FakeTarget


def make_bundle(folder, encoder, *, pair=False, token=False):
    """A bundle of a random graph."""
    folder.mkdir()
    shutil.copy(encoder / "tokenizer.json", folder)
    shutil.copy(encoder / "tokenizer_config.json", folder)
    labels = ["O", "B-x", "I-x"] if token else ["yes", "no"]
    vocabulary = json.loads((encoder / "config.json").read_text())["vocab_size"]
    head = HeadShape(kind="token" if token else "sequence", labels=len(labels))
    shape = EncoderShape(
        vocabulary=vocabulary, positions=64, token_types=2, embedding=16, hidden=16, head_size=8, heads=(2,), ffn=(32,),
        head=head,
    )  # fmt: skip
    weights = {name: 20 * w if name.startswith("head") else w for name, w in random_weights(shape).items()}
    save_model(write_student(shape, weights), folder / "model.onnx")
    task = {"name": "token-classification"} if token else {"name": "text-classification", "pair": pair}
    own = {"schema_version": 1, "task": task, "max_length": 48, "threads": 1, "session": {}}
    config = {"id2label": dict(enumerate(labels)), "edgekd": own}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("pair", "token"), [(False, False), (True, False), (False, True)])
def test_every_task_answers_the_same_again(tmp_path, tiny_encoder, pair, token):
    bundle = make_bundle(tmp_path / "b", tiny_encoder, pair=pair, token=token)
    fixed = [("please play", "the song")] if pair else ["please play the song"]
    write_evidence(bundle, build_target(FakeTarget()), "fp32", fixed, 1, 0.01, Progress(), own=fixed)
    evidence = read_evidence(bundle)
    assert (len(evidence.texts), evidence.own, evidence.own_texts) == (65, 1, tuple(fixed))
    found = replay(bundle, evidence)
    assert (found.texts, found.changed, found.drift) == (65, (), 0.0)
    assert (max(evidence.rows) > 10) is token
    assert np.load(bundle / "recheck" / "logits.npy").dtype == np.float32


def test_words_that_are_cut_otherwise_are_a_change(tmp_path, tiny_encoder):
    bundle = make_bundle(tmp_path / "b", tiny_encoder, token=True)
    write_evidence(bundle, build_target(FakeTarget()), "fp32", ["play"], 1, 0.01, Progress())
    evidence = read_evidence(bundle)
    moved = (evidence.rows[0] - 1, evidence.rows[1] + 1, *evidence.rows[2:])
    found = replay(bundle, evidence.model_copy(update={"rows": moved}))
    assert found.changed == (0, 1)
    assert "words then" in found.example


def test_half_a_surrogate_pair_in_a_users_text(tmp_path, tiny_encoder):
    bundle = make_bundle(tmp_path / "b", tiny_encoder)
    write_evidence(bundle, build_target(FakeTarget()), "fp32", ["play"], 1, 0.01, Progress(), own=["a \ud800 b"])
    assert replay(bundle, read_evidence(bundle)).changed == ()


def test_device_elsewhere_keeps_answers_without_a_ratio(tmp_path, tiny_encoder):
    bundle = make_bundle(tmp_path / "b", tiny_encoder)
    write_evidence(bundle, build_target(FakeTarget(device="pi")), "fp32", ["play"], 1, 0.01, Progress())
    evidence = read_evidence(bundle)
    assert evidence.ratio is None
    assert len(evidence.rows) == 64
    assert not (bundle / "recheck" / "anchor.onnx").exists()


def test_no_evidence(tmp_path):
    assert read_evidence(tmp_path) is None


def test_answers_are_rows_by_labels(tmp_path, tiny_encoder):
    bundle = make_bundle(tmp_path / "b", tiny_encoder)
    assert [rows.shape for rows in answers(bundle, ["play", "the song"])] == [(1, 2), (1, 2)]


def ratio(value, spread=0.02):
    return Ratio(bundle_ms=value, anchor_ms=1, value=value, interval=(value * (1 - spread), value * (1 + spread)))


@pytest.mark.parametrize(
    ("then", "now", "outcome"),
    [
        (ratio(4.0), ratio(4.2), "met"),
        (ratio(4.0), ratio(2.0), "met"),
        (ratio(4.0), ratio(5.2), "missed"),
        (ratio(4.0), ratio(4.6), "inconclusive"),
        (ratio(4.0), ratio(4.2, spread=0.2), "inconclusive"),
        (ratio(4.0, spread=0.3), ratio(4.0), "inconclusive"),
    ],
)
def test_regression_is_judged_by_its_interval(then, now, outcome):
    value, (low, high), found = regression(then, now, 1.15)
    assert found == outcome
    assert low < value < high


def test_open_end_is_never_met():
    then = ratio(4.0).model_copy(update={"interval": (0.0, None)})
    assert regression(then, ratio(4.0), 1.15)[1:] == ((0.0, float("inf")), "inconclusive")
