"""The exported files of a result: read off the stage's result, and shown."""

from __future__ import annotations

import json

import pytest

from edgekd.records.exported import graphs_of, quantisation_of
from edgekd.records.verdict import verdict_json
from edgekd.report.export_section import export_section

INT8 = {
    "instruction_set": "avx512_vnni", "fp32": 0.95, "int8": 0.948, "drop": 0.2, "limit": 0.5, "agreement": 0.993,
    "kept": True, "method": "dynamic", "kept_float": [], "drop_before": 0.2, "reduce_range": False, "saturated": False,
}  # fmt: skip


def exported(**changes):
    return {"parity": {}, "int8": INT8 | changes}


def test_kept_as_it_came():
    found = quantisation_of(exported())
    assert found.reason == (
        "dynamic INT8 kept: +0.20 points lost on validation (at most 0.5), 99.3% of the answers the same"
    )
    assert (found.kept, found.kept_float, found.agreement) == (True, (), 0.993)


def test_repaired():
    found = quantisation_of(exported(kept_float=["layers.1.ffn.down", "head.dense"], drop_before=4.0, method="static"))
    assert "+4.00 points before layers.1.ffn.down, head.dense stayed in FP32" in found.reason
    assert found.reason.startswith("static INT8 kept")


def test_refused():
    found = quantisation_of(exported(kept=False, drop=3.0, drop_before=3.0))
    assert "refused: +3.00 points" in found.reason
    assert "no few nodes are to blame" in found.reason


@pytest.mark.parametrize(("flag", "said"), [("reduce_range", "7 bits"), ("saturated", "unlike the target")])
def test_saturation_is_said(flag, said):
    assert said not in quantisation_of(exported()).reason
    assert said in quantisation_of(exported(**{flag: True})).reason


def test_what_an_earlier_version_left_in_the_store():
    old = {k: INT8[k] for k in ("instruction_set", "fp32", "int8", "drop", "limit", "agreement", "kept")}
    assert quantisation_of({"int8": old}).kept_float == ()
    assert "to blame" not in quantisation_of({"int8": old | {"kept": False}}).reason
    assert graphs_of({"int8": old}) is None
    assert quantisation_of({"int8": None}) is None


def tried(name, ratio, **changes):
    usual = {"median_ms": 2.0 * ratio, "ratio": ratio, "interval": [ratio - 0.01, ratio + 0.01], "gap": 1e-6}
    return {"name": name, "same": True, "fused": {}, **usual, **changes}


def test_the_section_shows_forms_and_fusions(sample):
    found = graphs_of(
        {
            "int8": None,
            "fused": {"model.onnx": {"BiasGelu": 6}, "model_quantized.onnx": {}},
            "choice": {"chosen": "b", "tried": [tried("a", 1.0), tried("b", 0.9, interval=[0.89, None]),
                                                tried("c", 0.8, gap=None, same=False)]},
            "int8_choice": {"chosen": "a", "tried": [tried("a", 1.0)]},
            "fp16": {"masks": ["mask"], "kept": [], "max_abs_gap": 0.004, "agreement": 1.0},
        }
    )  # fmt: skip
    assert [form.chosen for form in found.forms] == [False, True, False, True]
    assert found.forms[1].interval == (0.89, None)
    json.loads(found.model_dump_json())
    html = export_section(sample.model_copy(update={"graphs": found}))
    for text in ("6 BiasGelu", "nothing", "0.900 (0.890 to ?)", "no answers: refused", "INT8", "masks made finite"):
        assert text in html


def test_the_verdict_names_the_nodes(sample):
    found = quantisation_of(exported(kept_float=["layers.1.ffn.down"], drop_before=4.0))
    content = verdict_json(sample.model_copy(update={"quantisation": found}))
    assert content["quantisation"]["kept_float"] == ["layers.1.ffn.down"]


def test_nothing_exported(minimal):
    empty = minimal.model_copy(update={"parity": None, "quantisation": None, "graphs": None})
    assert export_section(empty) is None
