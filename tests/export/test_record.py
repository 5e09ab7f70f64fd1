"""The record of the exported files: why INT8 was kept, and how the report shows it."""

from __future__ import annotations

import json

import pytest

from edgekd.export.guard import _reason
from edgekd.records.export import Exported, Form, Half, Parity, Quantisation
from edgekd.records.verdict import verdict_json
from edgekd.report.export_section import export_section

INT8 = Quantisation(
    kept=True, drop_points=0.2, limit_points=0.5, reason="", agreement=0.993, drop_before=0.2,
    instruction_set="avx512_vnni", fp32=0.95, int8=0.948,
)  # fmt: skip
PARITY = Parity(rows=10, max_abs_gap=1e-6, label_agreement=1.0)


def reason(**changes):
    return _reason(INT8.model_copy(update=changes))


def test_kept_as_it_came():
    assert reason() == "dynamic INT8 kept: +0.20 points lost on validation (at most 0.5), 99.3% of the answers the same"


def test_repaired():
    said = reason(kept_float=("layers.1.ffn.down", "head.dense"), drop_before=4.0, method="static")
    assert "+4.00 points before layers.1.ffn.down, head.dense stayed in FP32" in said
    assert said.startswith("static INT8 kept")


def test_refused():
    said = reason(kept=False, drop_points=3.0, drop_before=3.0)
    assert "refused: +3.00 points" in said
    assert "no few nodes are to blame" in said


@pytest.mark.parametrize(("flag", "said"), [("reduce_range", "7 bits"), ("saturated", "unlike the target")])
def test_saturation_is_said(flag, said):
    assert said not in reason()
    assert said in reason(**{flag: True})


def form(name, ratio, **changes):
    usual = {"median_ms": 2.0 * ratio, "ratio": ratio, "interval": (ratio - 0.01, ratio + 0.01), "gap": 1e-6}
    return Form(**{"name": name, "precision": "fp32", "same": True, "chosen": False, **usual, **changes})


def test_the_section_shows_forms_and_fusions(sample):
    found = Exported(
        parity=PARITY,
        fused={"model.onnx": {"BiasGelu": 6}, "model_quantized.onnx": {}},
        forms=(
            form("a", 1.0), form("b", 0.9, interval=(0.89, float("inf")), chosen=True),
            form("c", 0.8, gap=None, same=False), form("a", 1.0, precision="int8", chosen=True),
        ),
        half=Half(masks=("mask",), max_abs_gap=0.004, agreement=1.0),
    )  # fmt: skip
    assert found.forms[1].interval == (0.89, None)
    assert Exported.model_validate(json.loads(found.model_dump_json())) == found
    html = export_section(sample.model_copy(update={"export": found}))
    for text in ("6 BiasGelu", "nothing", "0.900 (0.890 to ?)", "no answers: refused", "INT8", "masks made finite"):
        assert text in html


def test_the_verdict_names_the_nodes(sample):
    found = INT8.model_copy(update={"kept_float": ("layers.1.ffn.down",), "drop_before": 4.0})
    content = verdict_json(sample.model_copy(update={"export": Exported(parity=PARITY, quantisation=found)}))
    assert content["quantisation"]["kept_float"] == ["layers.1.ffn.down"]


def test_nothing_exported(minimal):
    assert export_section(minimal) is None
