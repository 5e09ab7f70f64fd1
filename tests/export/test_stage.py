"""The export stage: what decides its key, and the files that it makes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd.data.split import Split
from edgekd.distill.scoring import Judged
from edgekd.export.choice import GraphTarget
from edgekd.export.stage import ExportJob, export_student, exported_of
from edgekd.latency.targets.build import build_target
from edgekd.records.export import Form
from edgekd.settings.export import Export
from edgekd.settings.target import CpuTarget
from tests.export.test_guard import SHAPE, TASK, make_weights, texts


def wanted(quantize="avx512_vnni", fp16=False, **options):
    place = GraphTarget(build_target(CpuTarget()), "this machine", 16, 1)
    return ExportJob(Export(**options), quantize, 100.0, 1, texts(24, 1), place, fp16)


@pytest.fixture(scope="module")
def validation():
    rng = np.random.default_rng(0)
    return Judged(Split("validation", [""] * 30), texts(30), [TASK.labels[i] for i in rng.integers(0, 5, 30)])


@pytest.fixture
def exported(tmp_path, engine, validation):
    from edgekd.store import Store

    def export(asked):
        return export_student(Store(tmp_path), engine, (SHAPE, make_weights(SHAPE)), "weights", TASK, validation, asked)

    return export


def test_what_came_later_changes_no_key_unless_asked_for(exported):
    """Stores of users hold exports under these names: a new option must not make them anew."""
    key = json.loads((exported(wanted()).path / "manifest.json").read_text())["key"]
    assert sorted(key) == [
        "batch_size", "max_drop", "model", "options", "quantize", "quantizer", "validation", "writer",
    ]  # fmt: skip
    assert key["options"] == {"fused_qkv": True, "residual": "sum", "opset": 17}


@pytest.mark.parametrize(
    "asked", [wanted(int8="static"), wanted(choose="measured"), wanted(fp16=True), wanted(per_channel=False)]
)
def test_what_is_asked_for_has_a_key_of_its_own(asked, validation):
    usual = {"options": Export().model_dump()} | wanted().key(validation)
    assert {"options": asked.options.model_dump()} | asked.key(validation) != usual


def test_files_and_what_fuses(exported):
    made = exported(wanted(quantize=None))
    assert exported_of(made).quantisation is None
    assert sorted(p.name for p in made.path.glob("*.onnx")) == ["model.onnx"]
    made = exported(wanted(fp16=True))
    assert sorted(p.name for p in made.path.glob("*.onnx")) == ["model.onnx", "model_fp16.onnx", "model_quantized.onnx"]
    found = exported_of(made)
    assert found.half.max_abs_gap < 0.05
    assert found.half.kept == ()
    assert found.fused["model_quantized.onnx"]["DynamicQuantizeMatMul"] > 3
    assert found.parity.max_abs_gap < 1e-4


def winner(name, precision):
    return Form(
        name=name, precision=precision, median_ms=1.0, ratio=1.0, interval=(1.0, 1.0), gap=0.0, same=True, chosen=True
    )


def test_the_graph_is_chosen_by_measuring(exported, monkeypatch):
    """Measured for real; then a form is made the winner, to see that its file is the one that is kept."""
    from edgekd.export import choice
    from edgekd.export import stage as export

    monkeypatch.setattr(choice, "_ROUNDS", 3)
    made = exported(wanted(choose="measured"))
    forms = exported_of(made).forms
    assert [form.precision for form in forms] == ["fp32"] * (4 + 3) + ["int8"] * 4
    assert all(form.same and form.median_ms > 0 for form in forms)

    def choose(forms, precision, *_):
        return (winner("Q, K, V apart, residual as Add", precision),)

    monkeypatch.setattr(export, "choose_graph", choose)
    made = exported(wanted(choose="measured", opset=18))
    import onnx

    for name, kind in (("model.onnx", "MatMul"), ("model_quantized.onnx", "MatMulInteger")):
        graph = onnx.load(made.path / name).graph
        assert any(n.op_type == kind and "attention.query" in n.name for n in graph.node)
        assert not any(n.op_type == "Sum" for n in graph.node)


def test_the_optimisers_file_can_win(exported, monkeypatch):
    from edgekd.export import stage as export

    def choose(forms, precision, *_):
        return (winner(list(forms)[-1], precision),)

    monkeypatch.setattr(export, "choose_graph", choose)
    made = exported(wanted(choose="measured", quantize=None))
    found = exported_of(made)
    assert found.forms[0].name == "onnxruntime's transformer optimiser, level 2"
    assert found.fused["model.onnx"]["SkipLayerNormalization"] > 3


def test_a_choice_is_measured_once(exported, monkeypatch):
    from edgekd.export import stage as export

    asked = []

    def choose(forms, precision, *_):
        asked.append(len(forms))
        return (winner(next(iter(forms)), precision),)

    monkeypatch.setattr(export, "choose_graph", choose)
    first = exported(wanted(choose="measured", quantize=None))
    again = exported(wanted(choose="measured", quantize=None))
    assert len(asked) == 1
    assert (first.reused, again.reused) == (False, True)
