from __future__ import annotations

import onnx
import pytest

from edgekd.errors import EdgekdError, UsageError
from edgekd.graph.check import read_model
from edgekd.graph.writer import write_student

from .conftest import make_shape


def test_reads_a_whole_model(student):
    shape = make_shape()
    path, weights = student(shape)
    assert read_model(path) == write_student(shape, weights)


def truncated(model):
    return model.SerializeToString()[:-1]


def without_a_node(model):
    del model.graph.node[3]
    return model.SerializeToString()


def of_an_unknown_kind(model):
    model.graph.node[3].op_type = "Nonsense"
    return model.SerializeToString()


@pytest.mark.parametrize(
    "breaking", [truncated, without_a_node, of_an_unknown_kind, lambda _: b"", lambda _: b"PK\x03\x04"]
)
def test_a_broken_file_is_one_clear_line(student, breaking):
    path, _ = student(make_shape())
    path.write_bytes(breaking(onnx.load(path)))
    with pytest.raises(EdgekdError, match=rf"{path.name}: not a whole ONNX model \(.+\); export it again") as caught:
        read_model(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"none\.onnx: no such ONNX file"):
        read_model(tmp_path / "none.onnx")
