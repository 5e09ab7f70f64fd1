from __future__ import annotations

from unittest.mock import Mock

import onnx
import pytest
from google.protobuf.message import DecodeError

from edgekd.errors import EdgekdError, UsageError
from edgekd.graph import check
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


def test_a_file_that_onnx_wrote_half_on_a_full_disk_is_no_space(monkeypatch, tmp_path):
    """onnx's C++ writes what fits and says nothing; what reads it then finds it broken."""
    source = tmp_path / "model.onnx"
    source.write_bytes(bytes(1000))
    for free, error in ((100, "No space left"), (2**40, "corrupt")):
        monkeypatch.setattr(check.shutil, "disk_usage", lambda _, free=free: Mock(free=free))
        with pytest.raises((OSError, DecodeError), match=error), check.enough_space(tmp_path, source):
            raise DecodeError("Wire format was corrupt")
