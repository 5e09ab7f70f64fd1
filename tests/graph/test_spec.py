from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from edgekd.graph.spec import GraphOptions


@pytest.mark.parametrize("wrong", [{"opset": 16}, {"opset": 22}, {"residual": "skip"}, {"fused": True}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        GraphOptions(**wrong)


def test_imports_nothing_heavy():
    code = "import sys, edgekd.graph.spec; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
