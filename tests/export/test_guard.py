"""INT8 under guard, on a tiny classifier in which one node is to blame."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekd.data.split import Split
from edgekd.distill.scoring import Judged
from edgekd.errors import EdgekdError
from edgekd.export import guard as guard_module
from edgekd.export.guard import Guard, agreement, calibration_batches
from edgekd.export.stage import onnx_rows
from edgekd.graph.writer import save_model, write_student
from edgekd.latency.machine import detect_instruction_set
from edgekd.progress import Progress
from edgekd.runtime.encodings import Encodings
from edgekd.settings.export import Export
from edgekd.settings.task import TextClassification
from edgekd.tasks.build import build_task
from tests.graph.conftest import make_shape, make_weights

# What this machine computes with: a file made for VNNI saturates on one without, and would be repaired for that.
HOST = detect_instruction_set()

TASK = build_task(TextClassification(), [f"label {i}" for i in range(5)])
SHAPE = make_shape(token_types=0, activation="relu")


def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(4, 20, count))])
    return Encodings(rng.integers(0, 50, offsets[-1]).astype(np.int32), offsets)


def answers(path, encodings, title):
    return onnx_rows(path, encodings, 1)


def spoiled(*layers):
    """Weights with a neuron so large that eight bits leave nothing for the others; FP32 does not read it."""
    weights = make_weights(SHAPE)
    for layer in layers:
        weights[f"layers.{layer}.ffn.up.bias"][0] = 5000.0
        weights[f"layers.{layer}.ffn.down.weight"][:, 0] = 0.0
    return weights


@pytest.fixture
def guarded(tmp_path):
    """Record of the guard on a model; gold labels are what FP32 answers, so FP32 scores 1."""

    def run(weights, max_drop=5.0, instruction_set=HOST, **options):
        source = tmp_path / "model.onnx"
        save_model(write_student(SHAPE, weights), source)
        encodings = texts(150)
        gold = TASK.answers(TASK.decide(answers(source, encodings, "")), encodings)
        judged = Judged(Split("validation", [""] * 150), encodings, gold)
        guard = Guard(TASK, judged, instruction_set, max_drop, Export(**options), texts(40, 1), answers, Progress())
        return guard.guarded(source, tmp_path / "int8.onnx")

    return run


def float_products(path):
    model = onnx.load(path)
    constants = {t.name for t in model.graph.initializer}
    return {n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in constants}


def test_a_file_within_the_limit_is_left_alone(guarded, tmp_path, monkeypatch):
    monkeypatch.setattr(guard_module, "find_repair", lambda *_: pytest.fail("nothing to repair"))
    found = guarded(make_weights(SHAPE), max_drop=20)
    assert found.kept
    assert found.kept_float == ()
    assert found.drop_points == found.drop_before
    assert found.fp32 == 1
    assert found.drop_points == pytest.approx(100 * (1 - found.agreement))
    assert float_products(tmp_path / "int8.onnx") == {"head.output"}


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_the_node_to_blame_stays_in_fp32(guarded, tmp_path, method):
    found = guarded(spoiled(1), int8=method)
    assert found.drop_before > 5
    assert found.kept
    assert found.drop_points <= 5
    assert found.kept_float == ("layers.1.ffn.down",)
    assert found.method == method
    if method == "dynamic":
        assert float_products(tmp_path / "int8.onnx") == {"head.output", "layers.1.ffn.down"}


def test_two_to_blame(guarded):
    assert set(guarded(spoiled(0, 2)).kept_float) == {"layers.0.ffn.down", "layers.2.ffn.down"}


def test_what_nothing_repairs_is_refused_whole(guarded, tmp_path):
    found = guarded(spoiled(1), max_drop=-1)
    assert not found.kept
    assert found.kept_float == ()
    assert found.drop_points == found.drop_before
    assert float_products(tmp_path / "int8.onnx") == {"head.output"}


def test_saturation_is_handled_and_told(guarded, monkeypatch):
    monkeypatch.setattr(guard_module, "detect_instruction_set", lambda: "avx2")
    mine = guarded(make_weights(SHAPE), max_drop=100, instruction_set="avx2")
    assert (mine.reduce_range, mine.saturated) == (True, False)
    others = guarded(make_weights(SHAPE), max_drop=100, instruction_set="avx512_vnni")
    assert (others.reduce_range, others.saturated) == (False, True)


def test_calibration_takes_the_same_texts_of_like_length():
    batches = list(calibration_batches(texts(100), 20, Progress()))
    again = list(calibration_batches(texts(100), 20, Progress()))
    assert sum(len(batch["input_ids"]) for batch in batches) == 20
    assert all((a["input_ids"] == b["input_ids"]).all() for a, b in zip(batches, again, strict=True))
    widths = [batch["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths)


def test_no_text_to_calibrate_on():
    with pytest.raises(EdgekdError, match=r"export\.int8"):
        list(calibration_batches(texts(0), 20, Progress()))


def test_agreement_is_of_answers():
    exact = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    assert agreement(TASK, exact, exact[:, ::-1]) == 0
    assert agreement(TASK, exact, exact + 5) == 1
