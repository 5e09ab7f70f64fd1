import json

import pytest

from edgekd.errors import UsageError
from edgekd.records.verdict import read_verdict, verdict_json

KEYS = {
    "schema_version", "outcome", "exit_code", "demo", "task", "metric", "budget", "criteria", "latency", "quality",
    "quantisation", "model", "files", "machine",
    "speed", "versions", "finished",
}  # fmt: skip


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_keys_are_stable(sample, minimal):
    found = verdict_json(sample)
    assert set(found) == set(verdict_json(minimal)) == KEYS
    assert set(found["criteria"][0]) == {
        "kind",
        "name",
        "limit",
        "bound",
        "unit",
        "value",
        "interval",
        "outcome",
        "explanation",
    }
    assert set(found["latency"]["fixed"]) >= {"texts", "calls", "percentiles", "clock", "waited_share", "slowdown"}
    assert found["latency"]["fixed"]["samples_ms"] == []
    assert set(found["latency"]["fixed"]["percentiles"][0]) == {
        "q",
        "value_ms",
        "interval",
        "service_ms",
        "response_ms",
    }
    assert found["budget"] == {"latency_ms": 10.0, "percentile": 95.0, "judge": "fixed", "clock": "service"}


def test_it_names_the_validated_file_by_its_checksum(sample):
    found = verdict_json(sample)
    assert found["model"] == {"file": "model.onnx", "sha256": sample.files["model.onnx"]}
    assert len(found["model"]["sha256"]) == 64


def test_outcome_and_demo(sample, minimal):
    assert (verdict_json(sample)["outcome"], verdict_json(sample)["exit_code"]) == ("met", 0)
    assert verdict_json(sample)["demo"] is True
    assert (verdict_json(minimal)["outcome"], verdict_json(minimal)["exit_code"]) == ("unmeasured", 6)
    assert verdict_json(minimal)["latency"] == {}


def test_round_trip(sample, tmp_path):
    found = verdict_json(sample)
    verdict = read_verdict(write(tmp_path / "verdict.json", found))
    assert verdict.model_dump(mode="json") == found
    assert verdict.criteria == sample.criteria


def test_newer_schema_says_upgrade(sample, tmp_path):
    path = write(tmp_path / "verdict.json", verdict_json(sample) | {"schema_version": 2, "novel": 1})
    with pytest.raises(UsageError, match=r"verdict\.json: schema_version 2 is newer .* upgrade edgekd"):
        read_verdict(path)


def test_broken_json_names_the_line(tmp_path):
    with pytest.raises(UsageError, match=r"verdict\.json, line 2: not valid JSON"):
        read_verdict(write(tmp_path / "verdict.json", '{"outcome": "met",\n oops}'))


@pytest.mark.parametrize("content", ["[1]", "null", '"met"'])
def test_other_json_is_refused(tmp_path, content):
    with pytest.raises(UsageError, match="expected a JSON object"):
        read_verdict(write(tmp_path / "verdict.json", content))


def test_missing_field_is_named(sample, tmp_path):
    found = verdict_json(sample)
    del found["budget"]
    with pytest.raises(UsageError, match="budget: missing"):
        read_verdict(write(tmp_path / "verdict.json", found))


def test_missing_file_and_wrong_encoding(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_verdict(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"name": "caf\xe9"}')
    with pytest.raises(UsageError, match="not UTF-8"):
        read_verdict(tmp_path / "latin.json")
