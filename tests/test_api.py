"""EdgeKD from Python: the road of `compress` on foot, and what an import costs."""

import pytest
import yaml

import edgekd
from edgekd import api
from edgekd.errors import UsageError
from tests.conftest import run_light


@pytest.fixture
def profile(fast_profile, tmp_path):
    path = tmp_path / "fake.yaml"
    path.write_text(yaml.safe_dump(fast_profile.model_dump(mode="json")))
    return str(path)


def test_an_import_is_light_and_offers_what_it_can():
    found = run_light(
        "import edgekd\nassert callable(edgekd.compress) and callable(edgekd.load)",
        "torch", "transformers", "onnxruntime", "numpy", "pydantic", "rich",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    with pytest.raises(AttributeError, match="no attribute 'comprss'"):
        _ = edgekd.comprss


def test_a_request_is_checked(tmp_path):
    asked = api.request("./t", "./d", latency_ms=3, settings={"target.threads": 1}, task={"name": "text-regression"})
    assert (asked.demo, asked.teacher, asked.profile.budget.latency_ms) == (False, "./t", 3)
    assert asked.task.name == "text-regression"
    assert api.request(latency_ms=3).demo
    for wrong in ({"settings": {"budget.latency": 3}}, {"profile": "cpus"}, {"latency_ms": -1}, {"tasks": "x"}):
        with pytest.raises(UsageError):
            api.request("./t", "./d", **wrong)


def test_the_road_on_foot(profile, tmp_path, intent_data, tiny_encoder):
    cache = tmp_path / "cache"
    taught = api.teach(tiny_encoder, intent_data, tmp_path / "teacher", profile=profile, cache_dir=cache)
    asked = api.request(tmp_path / "teacher", intent_data, profile=profile, latency_ms=0.03)
    assert taught.validation == max(point.score for point in taught.points)
    plan = api.plan(asked, cache_dir=cache)
    assert plan.choice.kind == "student"
    student = api.distill(asked, plan, tmp_path / "student", cache_dir=cache)
    assert student.untrained <= student.validation
    exported = api.export(asked, tmp_path / "student", tmp_path / "onnx", cache_dir=cache)
    assert exported.parity.max_abs_gap < 1e-4
    assert (tmp_path / "onnx" / "model.onnx").is_file()
    with pytest.raises(UsageError, match=r"no model\.safetensors"):
        api.export(asked, tmp_path / "onnx", tmp_path / "x", cache_dir=cache)
    result = api.compress(asked, tmp_path / "bundle", cache_dir=cache)
    assert (result.outcome, result.plan) == ("met", plan)
    assert api.validate(tmp_path / "bundle", only="answers", cache_dir=cache).outcome == "met"
    assert api.load(tmp_path / "bundle").predict("turn the lamp")[0]["label"] == "lights"
    with pytest.raises(UsageError, match="no such bundle"):
        api.validate(tmp_path / "none")


def test_half_of_what_belongs_together_is_no_demo(profile):
    with pytest.raises(UsageError, match="--teacher-outputs without --encoder"):
        api.request(teacher_outputs="answers.jsonl", latency_ms=5, profile=profile)


@pytest.mark.parametrize("ask", [api.plan, lambda request: api.compress(request, "out")])
def test_a_missing_budget_is_known_before_anything_is_read(ask):
    with pytest.raises(UsageError, match="--latency-ms is missing"):
        ask(api.request(teacher="./none", data="./none"))
