"""--family: what is refused, and two budgets on the fake target."""

import json

import pytest
import yaml

from edgekd.pipeline import family
from edgekd.pipeline.demo import demo_profile
from edgekd.profiles import save_request
from edgekd.settings.request import Request
from tests.cli.test_cli import refused, run


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("5,fast", "'fast' is no budget; write milliseconds, such as 5,10,20"),
        ("5,-1", "'-1' is no budget"),
        ("5,0", "'0' is no budget"),
        ("5,1.2.3", "'1.2.3' is no budget"),
        ("5,,10", "'' is no budget"),
        ("5,10,5ms", "a budget is there twice"),
        ("5", "one budget is no family; give it as --latency-ms"),
    ],
)
def test_budgets_that_are_none(capsys, value, line):
    assert line in refused(capsys, "compress", "--demo", "--family", value)


@pytest.mark.parametrize(("flag", "value"), [("--latency-ms", "5"), ("--plan", "p.json"), ("--config", "c.yaml")])
def test_family_plans_for_itself(capsys, flag, value):
    assert f"--family goes without {flag}" in refused(capsys, "compress", "--demo", "--family", "5,10", flag, value)


def test_dry_run_names_the_family(capsys):
    code, out, _ = run(capsys, "compress", "--demo", "--family", "10,5", "--dry-run")
    assert code == 0
    assert "a bundle for each of --family 10,5" in out
    assert "latency_ms: 5" in out


def test_family_does_not_go_into_a_bundle(capsys, tmp_path):
    (tmp_path / "verdict.json").write_text("{}")
    line = refused(capsys, "compress", "--demo", "--family", "5,10", "--out", tmp_path)
    assert "is a bundle: a family needs its own folder" in line


def test_dry_run_refuses_what_the_run_refuses(capsys, tmp_path):
    (tmp_path / "verdict.json").write_text("{}")
    common = ("compress", "--demo", "--dry-run", "--out")
    assert "is a bundle" in refused(capsys, *common, tmp_path, "--family", "5,10")
    assert "is a file" in refused(capsys, *common, tmp_path / "verdict.json", "--family", "5,10")
    assert "too near to each other" in refused(capsys, *common, tmp_path / "new", "--family", "5,5.0000001")


@pytest.mark.parametrize(("flags", "folder"), [(("--latency-ms", "5"), ""), (("--family", "5,10"), "5ms")])
def test_dry_run_of_the_demo_knows_its_own_bundle(capsys, tmp_path, flags, folder):
    bundle, arguments = tmp_path / "out" / folder, ("compress", "--demo", "--dry-run", "--out", tmp_path / "out")
    _, printed, _ = run(capsys, *arguments, *flags, "--json")
    bundle.mkdir(parents=True)
    request = Request.model_validate(json.loads(printed)["request"])
    assert request.profile == demo_profile(request.profile)
    save_request(request, bundle / "edgekd.yaml")
    (bundle / "verdict.json").write_text('{"files": {"edgekd.yaml": "sum"}}')
    code, _, err = run(capsys, *arguments, *flags)
    assert code == 0, err


def test_every_budget_gets_a_bundle_and_the_same_student_is_said_so(
    capsys, tmp_path, tiny_teacher, intent_data, fast_profile, shared_session
):
    profile = fast_profile.model_dump(mode="json")
    profile["distill"]["stages"][0]["training"]["epochs"] = 2
    profile["accept"]["min_retained"] = 0.1
    (tmp_path / "fake.yaml").write_text(yaml.safe_dump(profile))
    out = tmp_path / "family"
    code, printed, err = run(
        capsys, "compress", "--teacher", tiny_teacher, "--data", intent_data, "--profile", tmp_path / "fake.yaml",
        "--cache-dir", shared_session.store.root, "--family", "0.03001ms,0.03", "--out", out, "--json",
    )  # fmt: skip
    found = family.Family.model_validate(json.loads((out / "family.json").read_text()))
    assert code == 0, err
    assert [m.folder for m in found.members] == ["0.03ms", "0.03001ms"]
    assert all((out / m.folder / "model.onnx").is_file() and m.latency_ms <= m.budget_ms for m in found.members)
    assert [m.same_as for m in found.members] == [None, 0.03]
    assert "0.03001 ms leads to the model of 0.03 ms; it is trained once" in err
    verdicts = json.loads(printed)["verdicts"]
    assert {name: v["budget"]["latency_ms"] for name, v in verdicts.items()} == {
        "0.03ms": 0.03,
        "0.03001ms": 0.03001,
    }
