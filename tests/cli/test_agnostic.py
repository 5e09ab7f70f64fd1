"""`edgekd distill --task-agnostic`: an encoder from raw text, which `edgekd teach` takes."""

import json
import shutil

import pytest

from tests.cli.test_cli import refused, run
from tests.conftest import sentences


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("".join(row["text"] + "\n" for row in sentences(120, 9, labelled=False)))
    return file


def test_encoder_that_teach_takes(capsys, tmp_path, tiny_encoder, intent_data, text):
    out = tmp_path / "compact"
    arguments = (
        "distill", "--task-agnostic", "--teacher", tiny_encoder, "--text", text, "--student-shape", "2x16x32h2",
        "--out", out, "--cache-dir", tmp_path / "cache", "--epochs", "4", "--learning-rate", "0.003", "--json",
    )  # fmt: skip
    code, printed, err = run(capsys, *arguments)
    assert code == 0, err
    found = json.loads(printed)
    assert (found["loss"], found["texts"], found["held_out_texts"]) == ("minilmv2", 114, 6)
    assert found["held_out_after"] < found["held_out_before"]
    assert {p.name for p in out.iterdir()} == {
        "config.json", "files.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert "--overwrite" in refused(capsys, *arguments)
    code, printed, err = run(
        capsys, "teach", "--encoder", out, "--data", intent_data, "--out", tmp_path / "teacher", "--epochs", "15",
        "--learning-rate", "0.003", "--cache-dir", tmp_path / "cache", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(printed)["validation"] > 0.5  # four classes


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"--teacher": None}, "--teacher is missing"),
        ({"--text": None}, "--text is missing"),
        ({"--text": ""}, "--text is empty"),
        ({"--text": "nowhere.txt"}, "no such file"),
        ({"--student-shape": None}, "--student-shape is missing"),
        ({"--student-shape": "small"}, "write LAYERSxHIDDEN[xFFN][hHEADS]"),
        ({"--student-shape": "2x12"}, "no multiple of 8, the teacher's head size"),
        ({"--out": None}, "--out is missing"),
        ({"--loss": "kl"}, "'kl' is not one of"),
        ({"--epochs": "-1"}, "training.epochs"),
        ({"--max-steps": "0"}, "max_steps"),
        ({"--max-length": "9999"}, "--max-length 9999"),
        ({"--data": "somewhere"}, "--data does not go with --task-agnostic"),
        ({"--plan": "plan.json"}, "--plan does not go with --task-agnostic"),
        ({"--latency-ms": "10"}, "--latency-ms does not go with --task-agnostic"),
        ({"--batch-size": "4"}, "--batch-size does not go with --task-agnostic"),
        ({"--loss": "minilm", "--student-shape": "2x16h2"}, "loss minilm: the teacher's layer"),
    ],
)
def test_refusals(capsys, tmp_path, tiny_encoder, text, changes, line):
    flags = {"--teacher": tiny_encoder, "--text": text, "--student-shape": "2x16h4", "--out": tmp_path / "o"} | changes
    given = [part for flag, value in flags.items() if value is not None for part in (flag, value)]
    assert line in refused(capsys, "distill", "--task-agnostic", *given, "--cache-dir", tmp_path / "cache")
    assert not (tmp_path / "o").exists()


def test_folders_that_are_no_encoder(capsys, tmp_path, tiny_encoder, text):
    def line(folder):
        return refused(
            capsys, "distill", "--task-agnostic", "--teacher", folder, "--text", text, "--student-shape", "2x16h4",
            "--out", tmp_path / "o", "--cache-dir", tmp_path / "cache",
        )  # fmt: skip

    assert "there is no such folder" in line(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "is empty" in line(tmp_path / "empty")
    shutil.copytree(tiny_encoder, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    assert "holds no weights" in line(tmp_path / "bare")


def test_too_few_texts(capsys, tmp_path, tiny_encoder):
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    line = refused(
        capsys, "distill", "--task-agnostic", "--teacher", tiny_encoder, "--text", tmp_path / "few.txt",
        "--student-shape", "2x16h4", "--out", tmp_path / "o", "--cache-dir", tmp_path / "cache",
    )  # fmt: skip
    assert "2 texts are too few" in line


@pytest.mark.parametrize("flag", ["--text", "--student-shape", "--loss", "--epochs"])
def test_its_flags_need_it(capsys, flag):
    value = {"--loss": "mi", "--epochs": "2"}.get(flag, "x")
    assert f"{flag} needs --task-agnostic" in refused(capsys, "distill", flag, value)
