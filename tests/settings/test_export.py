from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from edgekd.settings.export import GraphOptions


@pytest.mark.parametrize("wrong", [{"opset": 16}, {"opset": 22}, {"residual": "skip"}, {"fused": True}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        GraphOptions(**wrong)


def test_imports_nothing_heavy():
    code = "import sys, edgekd.settings.export; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_usual_export_options_leave_no_trace_in_keys():
    from edgekd.settings.export import Export

    assert Export().model_dump() == GraphOptions().model_dump()
    assert Export().graph == GraphOptions()
    asked = Export(residual="add", int8="static", calibration="entropy")
    assert asked.model_dump() == {
        **GraphOptions(residual="add").model_dump(),
        "int8": "static",
        "calibration": "entropy",
    }
    assert Export.model_validate(asked.model_dump()) == asked
    assert asked.graph == GraphOptions(residual="add")
