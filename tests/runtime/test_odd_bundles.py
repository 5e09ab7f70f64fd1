"""Graphs and settings that no bundle of ours has: refused when it is loaded, in one line, and in time."""

import json
import math
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import UsageError
from edgekd.runtime import load, model

from ..deploy.conftest import LABELS, bundle

__all__ = ["bundle"]

INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def graph(nodes, outputs, kind=INT, axes=("batch", "length"), constants=()):
    """A graph of input_ids with these nodes."""
    inputs = [helper.make_tensor_value_info("input_ids", kind, axes)]
    outputs = [helper.make_tensor_value_info(name, *what) for name, what in outputs.items()]
    made = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(v, n) for n, v in constants])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(kind, inputs, outputs, **more):
    return helper.make_node(kind, inputs, outputs, **more)


ROWS = [node("Cast", ["input_ids"], ["f"], to=FLOAT), node("ReduceMean", ["f"], ["m"], axes=[1], keepdims=1)]
WEIGHT = ("w", np.ones((1, len(LABELS)), np.float32))
LOGITS = {"logits": (FLOAT, ["batch", len(LABELS)])}
RIGHT = ([*ROWS, node("MatMul", ["m", "w"], ["logits"])], LOGITS)


def forever():
    """A loop of 2^60 turns."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["state", "one"], ["next"])], "body",
        [value("turn", INT, []), value("go", TensorProto.BOOL, []), value("state", FLOAT, [])],
        [value("go_on", TensorProto.BOOL, []), value("next", FLOAT, [])],
        [numpy_helper.from_array(np.float32(1), "one")],
    )  # fmt: skip
    loop = node("Loop", ["turns", "yes", "start"], ["end"], body=body)
    constants = [
        WEIGHT, ("turns", np.array(2**60)), ("yes", np.array(True)), ("start", np.float32(0)),
    ]  # fmt: skip
    return graph([*ROWS, loop, node("Add", ["m", "end"], ["n"]), node("MatMul", ["n", "w"], ["logits"])], LOGITS,
                 constants=constants)  # fmt: skip


GRAPHS = {
    "a scalar": graph([*ROWS, node("ReduceMean", ["m"], ["logits"], keepdims=0)], {"logits": (FLOAT, [])}),
    "three axes": graph(
        [*RIGHT[0][:2], node("MatMul", ["m", "w"], ["n"]), node("Unsqueeze", ["n", "one"], ["logits"])],
        {"logits": (FLOAT, ["a", "b", "c"])}, constants=[WEIGHT, ("one", np.array([1]))],
    ),
    "rows of its own": graph(
        [node("Identity", ["c"], ["logits"])], {"logits": (FLOAT, ["n", len(LABELS)])},
        constants=[("c", np.zeros((7, len(LABELS)), np.float32))],
    ),
    "tokens that are floats": graph(
        [node("ReduceMean", ["input_ids"], ["m"], axes=[1], keepdims=1), RIGHT[0][2]], LOGITS, kind=FLOAT,
        constants=[WEIGHT],
    ),
    "four tokens alone": graph(*RIGHT, axes=[1, 4], constants=[WEIGHT]),
    "three outputs": graph(
        [*RIGHT[0], node("Identity", ["logits"], ["b"]), node("Identity", ["logits"], ["c"])],
        LOGITS | {"b": LOGITS["logits"], "c": LOGITS["logits"]}, constants=[WEIGHT],
    ),
    "logits that are whole": graph(
        [*RIGHT[0][:2], node("MatMul", ["m", "w"], ["n"]), node("Cast", ["n"], ["logits"], to=INT)],
        {"logits": (INT, ["batch", len(LABELS)])}, constants=[WEIGHT],
    ),
    "words beyond its vocabulary": graph(
        [node("Gather", ["v", "input_ids"], ["e"]), node("ReduceMean", ["e"], ["logits"], axes=[1], keepdims=0)],
        LOGITS, constants=[("v", np.ones((2, len(LABELS)), np.float32))],
    ),
    "more rows than memory": graph(
        [*RIGHT[0][:2], node("Expand", ["m", "s"], ["x"]), node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1),
         node("MatMul", ["y", "w"], ["logits"])], LOGITS, constants=[WEIGHT, ("s", np.array([1, 10**13]))],
    ),
}  # fmt: skip


@pytest.fixture
def copy(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "copy")
    (folder / "verdict.json").unlink(missing_ok=True)
    return folder


def test_the_right_graph_is_taken(copy):
    onnx.save(graph(*RIGHT, constants=[WEIGHT]), copy / "model.onnx")
    assert load(copy).predict("rain")[0]["label"] in LABELS


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_of_another_kind_is_refused(copy, name):
    onnx.save(GRAPHS[name], copy / "model.onnx")
    with pytest.raises(UsageError, match=r"model\.onnx") as refused:
        load(copy)
    assert "\n" not in str(refused.value)


def test_a_graph_without_end_is_refused(copy, monkeypatch):
    monkeypatch.setattr(model, "_TRY_SECONDS", 0.3)
    onnx.save(forever(), copy / "model.onnx")
    with pytest.raises(UsageError, match=r"does not answer a text within 0\.3 s"):
        load(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": math.inf}, {"max_length": 0}, {"max_length": 10**6}, {"threads": math.inf}, {"threads": 0},
        {"session": {"providers": 7}}, {"session": {"providers": [7]}}, {"session": {"provider_options": 7}},
        {"session": {"provider_options": [[]]}}, {"session": {"graph_level": []}}, {"session": {"graph_level": {}}},
        {"slot_labels": "x"}, {"slot_labels": {"a": 1}}, {"task": {"name": None}}, {"task": {"name": []}}, {"task": 7},
        {"output": 7}, {"words": 7},
    ],
)  # fmt: skip
def test_settings_of_another_kind_are_refused(copy, change):
    config = json.loads((copy / "config.json").read_text())
    config["edgekd"] |= change
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"config\.json"):
        load(copy)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_no_answer(copy, value):
    weight = np.full((1, len(LABELS)), value, np.float32)
    onnx.save(graph(*RIGHT, constants=[("w", weight)]), copy / "model.onnx")
    with pytest.raises(UsageError, match="logits are not numbers"):
        load(copy).predict("rain")


def test_a_text_that_the_graph_cannot_take_is_one_line(copy):
    onnx.save(GRAPHS["words beyond its vocabulary"], copy / "model.onnx")
    with pytest.raises(UsageError, match=r"does not answer a text: .*indices element out of data bounds"):
        load(copy)
