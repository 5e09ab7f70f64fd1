from __future__ import annotations

import pytest

from .scripted import write_graph


@pytest.fixture
def graph(tmp_path):
    return write_graph(tmp_path / "model.onnx")
