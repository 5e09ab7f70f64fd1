"""`edgekd predict`: what it writes, and how it ends."""

import json
import os
import subprocess
import sys

import pytest

from edgekd.runtime import load

from ..deploy.conftest import TEXTS, bundle, expected

__all__ = ["bundle", "expected"]


def predict(bundle, *words, given=b"", **options):
    command = [sys.executable, "-m", "edgekd", "predict", str(bundle), *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, timeout=60, check=False, **options)


def answers(run):
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.decode().splitlines()]


def test_answers_of_stdin_are_those_of_the_runtime(bundle, expected):
    run = predict(bundle, given="".join(f"{text}\n" for text in TEXTS).encode())
    found = answers(run)
    assert [row["text"] for row in found] == TEXTS
    assert [row["label"] for row in found] == expected
    assert run.stderr == b"note: 1 of 12 texts have more than 16 tokens and were cut\n"


def test_tables_and_scores(bundle, tmp_path):
    (tmp_path / "a.csv").write_text("id,utterance\n1,rain\n2,jazz\n")
    found = answers(predict(bundle, tmp_path / "a.csv", "--all-scores"))
    assert [row["text"] for row in found] == ["rain", "jazz"]
    assert found == [
        {"text": text} | answer
        for text, answer in zip(["rain", "jazz"], load(bundle).predict(["rain", "jazz"], all_scores=True), strict=True)
    ]


def test_what_the_locale_cannot_write_is_utf_8(bundle):
    run = predict(bundle, given="Zoë 中\n".encode(), env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"})
    assert answers(run)[0]["text"] == "Zoë 中"


def test_answers_before_a_broken_row_are_given(bundle, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "rain"}\n' * 2000 + "{\n")
    run = predict(bundle, tmp_path / "a.jsonl")
    assert run.returncode == 2
    assert run.stdout.count(b"\n") >= 1024
    assert b"a.jsonl, row 2001: broken JSON" in run.stderr
    assert run.stderr.count(b"\n") == 1


@pytest.mark.parametrize("given", [b"", None])
def test_nothing_to_answer(bundle, tmp_path, given):
    (tmp_path / "a.txt").write_bytes(b"")
    run = predict(bundle, *([tmp_path / "a.txt"] if given is None else []))
    assert run.returncode == 2
    assert b"no texts" in run.stderr


def test_a_closed_pipe_ends_quietly(bundle, tmp_path):
    (tmp_path / "a.txt").write_text("rain\n" * 20_000)
    command = f"{sys.executable} -m edgekd predict {bundle} {tmp_path / 'a.txt'} | head -n 1; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr == ""
    first, status = run.stdout.splitlines()
    assert json.loads(first)["text"] == "rain"
    assert status == "0"


def test_no_bundle(tmp_path):
    run = predict(tmp_path, given=b"rain\n")
    assert run.returncode == 2
    assert b"config.json: missing; is this an edgekd bundle?" in run.stderr


@pytest.mark.parametrize("flag", ["--pair-column", "--tokens-column"])
def test_a_column_that_the_task_does_not_have_is_refused(bundle, tmp_path, flag):
    (tmp_path / "a.csv").write_text("text,other\nrain,jazz\n")
    run = predict(bundle, tmp_path / "a.csv", flag, "other")
    assert run.returncode == 2
    assert f"{flag}: this model's task is text-classification: leave it out" in run.stderr.decode()


def test_quiet_leaves_out_notes(bundle):
    run = predict(bundle, "-q", given=b"rain " * 100)
    assert answers(run)
    assert run.stderr == b""


def test_nothing_that_steers_a_terminal_comes_out(bundle):
    run = predict(bundle, given="rain \x1b[2J \x9b2J \u202eabc\n".encode())
    assert answers(run)[0]["text"] == "rain \x1b[2J \x9b2J \u202eabc"
    assert not {"\x1b", "\x9b", "\u202e"} & set(run.stdout.decode())
