from __future__ import annotations

import onnx
import pytest

from edgekd.errors import EdgekdError, UsageError
from edgekd.graph.parity import compare_logits, run_onnx
from edgekd.graph.quantize import quantize_dynamic
from edgekd.graph.variants import OPTIMISER_LEVELS, fused_nodes, optimise, writer_variants
from edgekd.settings.export import GraphOptions

from .conftest import LINEAR, make_batch, make_shape


def test_the_given_form_comes_first():
    given = GraphOptions(fused_qkv=False, residual="add", opset=20)
    forms = writer_variants(given)
    assert len(forms) == 4
    assert next(iter(forms.items())) == ("Q, K, V apart, residual as Add", given)
    assert all(form.opset == 20 for form in forms.values())
    assert len({form.model_dump_json() for form in forms.values()}) == 4


@pytest.mark.parametrize("level", OPTIMISER_LEVELS)
def test_the_rival_is_the_same_function(student, tmp_path, level):
    shape = make_shape(heads=(3, 3, 3), ffn=(40, 40, 40))
    path, _ = student(shape, GraphOptions(fused_qkv=False, residual="add"))
    rival = tmp_path / "rival.onnx"
    optimise(path, rival, level)
    kinds = {node.op_type for node in onnx.load(rival).graph.node}
    assert {"SkipLayerNormalization", "BiasGelu"} <= kinds
    onnx.checker.check_model(onnx.load(rival))
    batches = [make_batch(shape, 3, 12), make_batch(shape, 1, 7)]
    for mine, theirs in zip(run_onnx(path, batches), run_onnx(rival, batches), strict=True):
        assert compare_logits(mine, theirs).max_abs_gap < 1e-4


def test_the_report_tells_the_forms_apart(student, tmp_path):
    found = {}
    for residual in ("sum", "add"):
        path, _ = student(make_shape(), GraphOptions(residual=residual))
        quantize_dynamic(path, tmp_path / "int8.onnx", instruction_set="avx512_vnni")
        onnx.shape_inference.infer_shapes_path(tmp_path / "int8.onnx", tmp_path / "int8.onnx")
        found[residual] = fused_nodes(tmp_path / "int8.onnx")
    assert "SkipLayerNormalization" not in found["sum"]
    assert found["add"]["SkipLayerNormalization"] == 6
    assert found["sum"]["DynamicQuantizeMatMul"] == len(LINEAR) + 1


def test_what_fuses_in_fp32(student):
    path, _ = student(make_shape())
    found = fused_nodes(path)
    assert found["BiasGelu"] == 3
    assert list(found) == sorted(found)


def test_bad_files(tmp_path):
    with pytest.raises(UsageError, match="no such ONNX file"):
        optimise(tmp_path / "none.onnx", tmp_path / "x.onnx", 0)
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(EdgekdError, match=r"broken\.onnx"):
        fused_nodes(tmp_path / "broken.onnx")
