"""--teacher-outputs: a local teacher of what another said, and the whole line on top of it."""

import json
import random

import pytest
import yaml

from edgekd.models.teacher import load_teacher
from edgekd.records.result import read_result
from edgekd.settings.profile import override
from tests.cli.test_cli import refused, run
from tests.conftest import INTENTS, sentences, write_rows


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr("edgekd.session.usable_cpus", lambda: 1)


@pytest.fixture(scope="module")
def profile_file(fast_profile, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "fake.yaml"
    profile = override(fast_profile, {"teach.training.epochs": 30, "distill.stages.0.training.epochs": 15})
    path.write_text(yaml.safe_dump(profile.model_dump(mode="json")))
    return path


def said(rows, seed, wrong=0.0):
    """Top-1 probabilities of sentences; `wrong` of them name another intent."""
    rng, found = random.Random(seed), []
    for row in rows:
        label = rng.choice(list(INTENTS)) if rng.random() < wrong else row["label"]
        found.append({"text": row["text"], "probs": {label: 0.9}})
    return found


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def covering(tmp_path_factory, intent_data):
    """Outputs on three quarters of the unlabelled texts, on half of test, on texts that are nowhere."""
    file = tmp_path_factory.mktemp("outputs") / "outputs.jsonl"
    unlabeled, test = sentences(160, 4), lines(intent_data / "test.jsonl")
    write_rows(file, said(unlabeled[:120], 0, wrong=0.1) + said(test[:60], 1) + said(sentences(40, 9), 2))
    return file


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, tiny_encoder, intent_data, covering, profile_file):
    from edgekd.cli import main

    out = tmp_path_factory.mktemp("out")
    command = ["compress", "--encoder", tiny_encoder, "--teacher-outputs", covering, "--data", intent_data, "--profile",
               profile_file, "--cache-dir", out / "cache", "--out", out / "bundle"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekd.session.usable_cpus", lambda: 1)
        with pytest.raises(SystemExit) as caught:
            main([str(part) for part in command])
    assert caught.value.code == 0
    return out / "bundle"


def test_teach_makes_a_teacher_of_outputs_and_data(capsys, tmp_path, tiny_encoder, covering, intent_data, profile_file):
    shared = ("--profile", profile_file, "--cache-dir", tmp_path / "cache", "--json")
    code, out, err = run(
        capsys, "teach", "--encoder", tiny_encoder, "--teacher-outputs", covering, "--data", intent_data, "--out",
        tmp_path / "teacher", *shared,
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["validation"] > 0.9
    assert "teacher outputs cover" in " ".join(err.split())
    assert "40 texts of the teacher outputs are not in the data" in " ".join(err.split())
    teacher = load_teacher(tmp_path / "teacher")
    assert (teacher.task, sorted(teacher.labels)) == ("text-classification", sorted(INTENTS))


def test_teach_from_outputs_alone(capsys, tmp_path, tiny_encoder, profile_file):
    write_rows(tmp_path / "o.jsonl", said(sentences(240, 1), 0))
    code, out, err = run(
        capsys, "teach", "--encoder", tiny_encoder, "--teacher-outputs", tmp_path / "o.jsonl", "--out",
        tmp_path / "teacher", "--profile", profile_file, "--cache-dir", tmp_path / "cache", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["validation"] > 0.8
    config = json.loads((tmp_path / "teacher" / "config.json").read_text())
    assert sorted(config["id2label"].values()) == sorted(INTENTS)


def test_report_sets_outputs_local_teacher_and_student_against_each_other(bundle):
    result = read_result(bundle / "result.json")
    assert result.outputs.covered == 60
    assert result.outputs.test == 120
    assert result.outputs.texts == 220
    rows = {row.name: row for row in result.outputs.compared}
    assert rows["teacher outputs, as given"].gold == 1.0
    assert rows["teacher outputs, as given"].outputs == 1.0
    assert rows["teacher outputs, as given"].teacher == rows["local teacher"].outputs == rows["local teacher"].gold
    assert rows["shipped model"].gold > 0.7
    assert result.row("teacher outputs, as given").score == 1.0
    assert result.data.rows["unlabeled"] == 200
    assert result.transfer.counts["unlabelled"] > 150
    report = (bundle / "report.html").read_text()
    assert "60 of 120 test texts" in report
    assert "made of encoder" in report
    assert result.calibration.rows == 80
    assert 0 <= result.calibration.fitted_error <= 1
    assert {noise.label for noise in result.calibration.noise} == set(INTENTS)
    assert "calibration error" in report
    config = yaml.safe_load((bundle / "edgekd.yaml").read_text())
    assert config["teacher_outputs"].endswith("outputs.jsonl")
    assert config["teacher"] is None


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--encoder", "e"), "--encoder without --teacher-outputs"),
        (("--teacher-outputs", "o"), "--teacher-outputs without --encoder"),
        (("--teacher-outputs", "o", "--encoder", "e", "--teacher", "t"), "--teacher goes without"),
        (("--teacher-outputs", " ", "--encoder", "e"), "--teacher-outputs is empty"),
        (("--teacher-outputs", "./no.jsonl", "--encoder", ".", "--dry-run"), "--teacher-outputs ./no.jsonl: no such"),
    ],
)
def test_half_of_what_belongs_together_is_refused(capsys, flags, line):
    assert line in refused(capsys, "compress", "--latency-ms", 5, *flags)


def test_unknown_label_and_other_task_are_one_line(capsys, tmp_path, tiny_encoder, intent_data, tag_data):
    write_rows(tmp_path / "o.jsonl", [{"text": "play", "label": "tennis"}])
    shared = ("teach", "--encoder", tiny_encoder, "--teacher-outputs", tmp_path / "o.jsonl", "--out", tmp_path / "t")
    assert 'o.jsonl, row 1: label "tennis" is none' in refused(capsys, *shared, "--data", intent_data)
    assert "--task text-regression: --teacher-outputs" in refused(capsys, *shared, "--task", "text-regression")
