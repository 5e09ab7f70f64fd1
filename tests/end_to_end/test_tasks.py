"""Every task from its data to a bundle's answers on the fake target; text and token classification: test_compress."""

import json
import random

import onnxruntime
import pytest

from edgekd.data.read import read_data
from edgekd.errors import UsageError
from edgekd.models.teacher import load_teacher
from edgekd.pipeline.compress import compress
from edgekd.proof.evidence import read_evidence, replay
from edgekd.runtime import load
from edgekd.session import teach_from
from edgekd.settings.profile import override
from edgekd.settings.request import Request
from edgekd.settings.task import JointIntentSlots, TextRegression

from ..conftest import FILLERS, INTENTS, write_rows


def write_splits(folder, make):
    for seed, (name, count) in enumerate({"train": 480, "validation": 80, "test": 160}.items()):
        write_rows(folder / f"{name}.jsonl", make(random.Random(seed), count))
    return folder


def run(session, encoder, data, profile, out, task=None):
    """Teach and compress."""
    teacher = teach_from(session, str(encoder), read_data(data, task=task), profile)
    request = Request(teacher=str(teacher.path), data=str(data), task=task, profile=profile)
    return teacher, compress(session, request, out)


def several(rng, count):
    """Texts with words of none to three intents, which are their labels."""
    rows = []
    for i in range(count):
        labels = rng.sample(list(INTENTS), rng.randint(0, 3))
        words = [word for label in labels for word in rng.sample(INTENTS[label], 3)] + rng.choices(FILLERS, k=2)
        rng.shuffle(words)
        rows.append({"text": f"{' '.join(words)} {i}", "labels": labels})
    return rows


def loudness(rng, count):
    """Pairs whose value, far from 0 and wide, is how many words of music and how few of weather they have."""
    rows = []
    for i in range(count):
        music, weather = rng.randint(0, 4), rng.randint(0, 3)
        first = rng.choices(INTENTS["music"], k=music) + rng.choices(FILLERS, k=2)
        second = [*rng.choices(INTENTS["weather"], k=weather), f"n{i}"]
        value = 500 + 40.5 * (music - weather)
        rows.append({"sentence1": " ".join(first), "sentence2": " ".join(second), "score": value})
    return rows


def commands(rng, count):
    """Texts of one intent, whose words of another are a span."""
    rows = []
    for i in range(count):
        intent, slot = ("lights", "alarm")[i % 2], ("music", "weather")[rng.randint(0, 1)]
        span = rng.sample(INTENTS[slot], rng.randint(0, 2))
        first = rng.sample(INTENTS[intent], 2) + rng.choices(FILLERS, k=1)
        last = [rng.choice(FILLERS), f"n{i}"]
        tags = [("I-" if k else "B-") + slot for k in range(len(span))]
        rows.append(
            {
                "tokens": first + span + last,
                "tags": ["O"] * len(first) + tags + ["O"] * len(last),
                "intent": intent,
            }
        )
    return rows


@pytest.mark.slow
def test_joint_intents_and_slots(shared_session, tiny_encoder, fast_profile, tmp_path):
    data, out = write_splits(tmp_path, commands), tmp_path / "b"
    profile = override(fast_profile, {"teach.training.epochs": 24, "distill.stages.0.hard_weight": 0.5})
    teacher, result = run(shared_session, tiny_encoder, data, profile, out, JointIntentSlots())
    assert (result.data.task, result.data.metric) == ("joint-intent-slots", "semantic accuracy")
    assert result.outcome == "met"
    assert result.row("teacher").score > 0.8
    quality = next(c for c in result.criteria if c.kind == "quality")
    assert all(part in quality.explanation for part in ("intent accuracy", "slot F1", "semantic error rate"))
    assert load_teacher(teacher.path).task == "joint-intent-slots"
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("bert", ["BertForSequenceClassification"])
    assert set(config["id2label"].values()) == {"lights", "alarm"}
    assert config["edgekd"]["slot_labels"][0] == "O"
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits", "slot_logits"]
    text = "turn the  lamp please: play jazz, now"
    (answer,) = load(out).predict(text, all_scores=True)
    assert answer["label"] == "lights"
    assert answer["score"] == max(answer["scores"].values()) > 0.5
    assert set(answer["scores"]) == {"lights", "alarm"}
    assert all(text[span["start"] : span["end"]] == span["text"] for span in answer["spans"])
    assert {span["label"] for span in answer["spans"]} == {"music"}
    assert replay(out, read_evidence(out)).changed == ()


@pytest.mark.slow
def test_multi_label_classification(shared_session, tiny_encoder, fast_profile, tmp_path):
    data, out = write_splits(tmp_path, several), tmp_path / "b"
    profile = override(fast_profile, {"teach.training.epochs": 24})
    teacher, result = run(shared_session, tiny_encoder, data, profile, out)
    assert (result.data.task, result.data.metric) == ("multi-label-classification", "macro F1")
    assert result.outcome == "met"
    assert result.row("teacher").score > 0.8
    config = json.loads((out / "config.json").read_text())
    assert config["problem_type"] == json.loads((teacher.path / "config.json").read_text())["problem_type"]
    assert (config["problem_type"], config["edgekd"]["task"]["threshold"]) == ("multi_label_classification", 0.5)
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    answers = load(out).predict([row["text"] for row in rows], all_scores=True)
    right = [{given["label"] for given in a["labels"]} == set(r["labels"]) for a, r in zip(answers, rows, strict=True)]
    assert sum(right) / len(rows) > 0.4  # a fifteenth by chance
    assert {len(answer["labels"]) for answer in answers} >= {0, 1, 2}
    for answer in answers:
        scores = [given["score"] for given in answer["labels"]]
        assert scores == sorted((score for score in answer["scores"].values() if score > 0.5), reverse=True)
    assert replay(out, read_evidence(out)).changed == ()
    # Another threshold gives other answers to the same logits.
    config["edgekd"]["task"]["threshold"] = 1 - 1e-6
    (out / "config.json").write_text(json.dumps(config))
    assert not any(answer["labels"] for answer in load(out).predict([row["text"] for row in rows]))


@pytest.mark.slow
def test_regression_of_pairs(shared_session, tiny_encoder, fast_profile, tmp_path):
    data, out = write_splits(tmp_path, loudness), tmp_path / "b"
    profile = override(fast_profile, {"teach.training.epochs": 24})
    teacher, result = run(shared_session, tiny_encoder, data, profile, out, TextRegression(pair=True))
    assert (result.data.task, result.data.metric) == ("text-regression", "Spearman correlation")
    assert result.outcome == "met"
    assert result.row("teacher").score > 0.7
    assert json.loads((teacher.path / "config.json").read_text())["problem_type"] == "regression"
    loud, quiet = load(out).predict([("play song jazz loud", "n1"), ("please", "rain storm wind n2")])
    assert loud["value"] > quiet["value"]
    assert 300 < quiet["value"] < loud["value"] < 750
    assert replay(out, read_evidence(out)).drift < 1e-3
    # A student from random weights finds the scale as well.
    new = override(profile, {"distill.init": {"name": "random"}, "distill.stages.0.training.epochs": 20})
    request = Request(teacher=str(teacher.path), data=str(data), task=TextRegression(pair=True), profile=new)
    again = compress(shared_session, request, tmp_path / "random")
    assert again.row("student FP32").score > 0.5
    values = [answer["value"] for answer in load(tmp_path / "random").predict([("play song", "n1"), ("please", "n2")])]
    assert all(300 < value < 750 for value in values)


def test_a_teacher_of_another_task_is_refused(shared_session, tiny_teacher, fast_profile, tmp_path):
    data = write_splits(tmp_path, several)
    request = Request(teacher=str(tiny_teacher), data=str(data), profile=fast_profile)
    with pytest.raises(UsageError, match=r"does text-classification, .* --task text-classification"):
        compress(shared_session, request, tmp_path / "b")
