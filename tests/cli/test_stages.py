"""Every stage command on folders, and `validate` on a finished bundle: the road of `compress`, on foot."""

import json

import pytest

from tests.cli.test_cli import refused, run


@pytest.fixture(scope="module")
def profile_file(fast_profile, tmp_path_factory):
    import yaml

    path = tmp_path_factory.mktemp("profile") / "fake.yaml"
    path.write_text(yaml.safe_dump(fast_profile.model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_the_road_on_foot(capsys, tmp_path, profile_file, cache, tiny_encoder, intent_data):
    def step(*arguments):
        code, out, err = run(capsys, *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    shared = ("--cache-dir", cache)
    work = ("--teacher", tmp_path / "teacher", "--data", intent_data, "--profile", profile_file, *shared)
    taught = step(
        "teach", "--encoder", tiny_encoder, "--data", intent_data, "--profile", profile_file,
        "--out", tmp_path / "teacher", *shared,
    )  # fmt: skip
    assert taught["validation"] > 0.9
    assert step("transfer", "--data", intent_data, "--out", tmp_path / "transfer")["counts"]["labelled"] == 160
    plan = step("plan", *work, "--always-distill", "--out", tmp_path / "plan.json")
    assert plan["chosen"] is not None
    student = step("distill", *work, "--plan", tmp_path / "plan.json", "--out", tmp_path / "student")
    assert student["validation"] > 0.8
    exported = step("export", *work, "--student", tmp_path / "student", "--out", tmp_path / "onnx")
    assert exported["parity"]["max_abs_gap"] < 1e-4
    assert (tmp_path / "onnx" / "model_quantized.onnx").is_file()
    measured = step(
        "export", *work, "--student", tmp_path / "student", "--out", tmp_path / "measured", "--choose-graph"
    )
    # The fake target's latency follows from FLOPs alone, which all forms share.
    forms = [form for form in measured["forms"] if form["precision"] == "fp32"]
    assert [form["name"] for form in forms if form["chosen"]] == ["QKV in one, residual as Sum"]
    assert len(forms) == 7
    assert (tmp_path / "measured" / "model.onnx").read_bytes() == (tmp_path / "onnx" / "model.onnx").read_bytes()
    verdict = step("compress", *work, "--always-distill", "--out", tmp_path / "bundle")
    assert verdict["outcome"] == "met"
    assert step("validate", tmp_path / "bundle")["outcome"] == "met"
    for kind in ("html", "markdown", "json"):
        # As a newer version would write it: the bundle stays whole.
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("edgekd.report.wording.percent", lambda value: f"{100 * value:.3f} %")
            assert run(capsys, "report", tmp_path / "bundle", "--format", kind)[0] == 0
        summary = tmp_path / "summary.md"
        asked = ("--only", "answers", "--markdown", summary)
        assert step("validate", tmp_path / "bundle", *asked)["outcome"] == "met"
        assert summary.read_text().startswith("### ✓ bundle: met\n")
    code, _, _ = run(capsys, "report", tmp_path / "bundle", "--out", tmp_path / "again.html")
    assert code == 0
    assert "<html" in (tmp_path / "again.html").read_text()
    code, _, _ = run(capsys, "validate", tmp_path / "bundle", "--latency-ms", "0.0001")
    assert code == 1
    model = tmp_path / "bundle" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"x")
    assert "does not match its checksum" in refused(capsys, "validate", tmp_path / "bundle")
    model.unlink()
    assert "missing" in refused(capsys, "validate", tmp_path / "bundle")


def test_validate_of_nothing(capsys, tmp_path):
    assert "no such bundle" in refused(capsys, "validate", tmp_path / "none")


def test_teach_refuses_a_full_folder(capsys, tmp_path, tiny_encoder, intent_data):
    (tmp_path / "x").write_text("mine")
    line = refused(capsys, "teach", "--encoder", tiny_encoder, "--data", intent_data, "--out", tmp_path)
    assert "--overwrite" in line


def test_plan_finds_out_first_that_it_cannot_write(capsys, tmp_path):
    """Before it looks for the teacher, let alone measures."""
    work = ("--teacher", tmp_path / "none", "--data", tmp_path / "none", "--latency-ms", "10")
    line = refused(capsys, "plan", *work, "--out", tmp_path / "no" / "plan.json")
    assert f"{tmp_path / 'no' / 'plan.json'}: there is no folder" in line


def test_plan_that_is_none(capsys, tmp_path, tiny_teacher, intent_data, cache):
    (tmp_path / "plan.json").write_text("{}")
    line = refused(
        capsys, "distill", "--teacher", tiny_teacher, "--data", intent_data, "--plan", tmp_path / "plan.json", "--out",
        tmp_path / "s", "--cache-dir", cache,
    )  # fmt: skip
    assert "not a plan" in line


def test_labels_that_the_teacher_lacks(capsys, tmp_path, tiny_teacher, intent_data, cache):
    rows = (intent_data / "train.jsonl").read_text().replace('"music"', '"tennis"')
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "validation", "test"):
        (data / f"{name}.jsonl").write_text(rows)
    line = refused(
        capsys, "compress", "--teacher", tiny_teacher, "--data", data, "--latency-ms", "10", "--out", tmp_path / "b",
        "--cache-dir", cache,
    )  # fmt: skip
    assert "tennis" in line


def test_length_beyond_the_teacher(capsys, tmp_path, tiny_teacher, intent_data, cache):
    line = refused(
        capsys, "compress", "--teacher", tiny_teacher, "--data", intent_data, "--latency-ms", "10",
        "--max-length", "9999", "--out", tmp_path / "b", "--cache-dir", cache,
    )  # fmt: skip
    assert "--max-length 9999" in line
