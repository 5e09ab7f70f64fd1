"""The tokenizer in the graph answers as the tokenizer beside it, or there is no file."""

import json
import shutil

import numpy as np
import onnxruntime
import onnxruntime_extensions
import pytest

from edgekd.cli import main
from edgekd.errors import UsageError
from edgekd.export.single_file import TEXTS, single_file
from edgekd.runtime import load
from edgekd.settings.task import MultiLabelClassification, TextClassification, TokenClassification

from ..deploy import conftest
from ..deploy.conftest import TEXTS as SOME
from ..deploy.conftest import write_bundle

# A real vocabulary has a piece for each letter; without, the operator gives up later in a word than BERT does.
LETTERS = [form for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-%()$:" for form in (letter, f"##{letter}")]


@pytest.fixture(autouse=True)
def _with_letters(monkeypatch):
    monkeypatch.setattr(conftest, "WORDS", sorted({*conftest.WORDS, *LETTERS}))


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "w").mkdir()
    write_bundle(tmp_path / "w", tmp_path / "intents")
    return tmp_path / "intents"


def opened(file):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def made(tmp_path, task, kind="sequence"):
    (tmp_path / "work").mkdir()
    write_bundle(tmp_path / "work", tmp_path / "other", kind, task)
    return tmp_path / "other"


def test_it_takes_text_and_answers_as_the_bundle(bundle, tmp_path, capsys):
    file = tmp_path / "one.onnx"
    with pytest.raises(SystemExit, match="0"):
        main(["export", "--bundle", str(bundle), "--single-file", str(file), "--json"])
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "equal_on": TEXTS}
    session, model = opened(file), load(bundle)
    assert [(tensor.name, tensor.shape) for tensor in session.get_inputs()] == [("text", [1])]
    for text in [*SOME, "", "rain " * 100, "Jàzz!"]:
        label, logits = session.run(["label", "logits"], {"text": np.array([text], dtype=object)})
        assert label.tolist() == [model.predict(text)[0]["label"]]
        assert logits == pytest.approx(model.logits([text]), abs=1e-3)


def test_other_tasks_have_no_label_or_no_file(tmp_path):
    flags = made(tmp_path, MultiLabelClassification())
    single_file(flags, tmp_path / "flags.onnx")
    assert [tensor.name for tensor in opened(tmp_path / "flags.onnx").get_outputs()] == ["logits"]
    for task, kind in ((TextClassification(pair=True), "sequence"), (TokenClassification(), "token")):
        shutil.rmtree(tmp_path / "work")
        shutil.rmtree(tmp_path / "other")
        with pytest.raises(UsageError, match="takes tasks on single texts"):
            single_file(made(tmp_path, task, kind), tmp_path / "none.onnx")
    assert not (tmp_path / "none.onnx").exists()


def test_a_text_that_is_read_otherwise_leaves_no_file(bundle, tmp_path):
    with pytest.raises(UsageError, match=r"reads 'rain \[SEP\] now' otherwise"):
        single_file(bundle, tmp_path / "one.onnx", ["rain now", "rain [SEP] now"])
    assert not (tmp_path / "one.onnx").exists()


def test_another_tokenizer_is_refused(bundle, tmp_path):
    other = shutil.copytree(bundle, tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["type"] = "BPE"
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="the tokenizer is BPE with BertNormalizer"):
        single_file(other, tmp_path / "one.onnx")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--single-file", "x.onnx"], "--single-file needs --bundle"),
        (["--bundle", "b", "--single-file", "x.onnx", "--triton", "m"], "goes with --triton or --single-file"),
        (["--bundle", "b"], "goes with --triton or --single-file"),
        (["--bundle", "b", "--single-file", "x.onnx", "--teacher", "t"], "leave out --teacher"),
        (["--bundle", "none", "--single-file", "x.onnx"], "config.json: missing"),
    ],
)
def test_flags_that_do_not_go_together(flags, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", *flags])
    assert words in capsys.readouterr().err
