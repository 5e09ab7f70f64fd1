"""A finished bundle checked again: whole, unchanged, on this machine and as if on another."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.bundle import checksums
from edgekd.errors import UsageError
from edgekd.pipeline.compress import compress
from edgekd.progress import Progress
from edgekd.proof import validate as module
from edgekd.proof.validate import CheckOptions, changes, validate
from edgekd.records.verdict import read_verdict
from edgekd.settings.profile import override
from edgekd.settings.request import Request
from tests.cli.test_cli import refused, run


@pytest.fixture(scope="module")
def made(shared_session, tiny_teacher, intent_data, fast_profile, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "bundle"
    request = Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile)
    assert compress(shared_session, request, out).outcome == "met"
    return out


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bundle")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def sign(bundle):
    """Make the verdict's checksums those of the files, as if the bundle had been made so."""
    found = checksums(bundle, ("verdict.json", "result.json"))
    edit(bundle / "verdict.json", lambda v: v.update(files=found))


def edit_evidence(bundle, change):
    edit(bundle / "recheck" / "evidence.json", change)
    sign(bundle)


def edit_logits(bundle, change):
    path = bundle / "recheck" / "logits.npy"
    np.save(path, change(np.load(path)).astype(np.float32))
    sign(bundle)


def elsewhere(monkeypatch):
    monkeypatch.setattr(module, "fingerprint", lambda machine: "another machine")


def check(bundle, **asked):
    return validate(bundle, CheckOptions(**asked), Progress())


def outcomes(found):
    return {criterion.kind: criterion.outcome for criterion in found.criteria}


def test_whole_bundle_on_its_own_machine(bundle):
    found = check(bundle)
    assert outcomes(found) == {"files": "met", "answers": "met", "drift": "met", "latency": "met"}
    assert (found.outcome, found.exit_code, found.judged) == ("met", 0, "absolute")
    assert found.changes == found.notes == ()


def test_evidence_is_small_and_among_the_checksums(bundle):
    files = read_verdict(bundle / "verdict.json").files
    assert {"recheck/evidence.json", "recheck/logits.npy", "recheck/anchor.onnx"} <= set(files)
    assert 50_000 < (bundle / "recheck" / "anchor.onnx").stat().st_size < 600_000


def test_users_texts_are_kept_only_when_asked(bundle, made, intent_data, shared_session, tiny_teacher, fast_profile):
    lines = [
        line for name in ("train", "unlabeled") for line in (intent_data / f"{name}.jsonl").read_text().splitlines()
    ]
    mine = [json.loads(line)["text"] for line in lines]
    kept = json.loads((made / "recheck" / "evidence.json").read_text())
    assert kept["own"] == 0
    assert not set(kept["texts"]) & set(mine)
    request = Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile, bundle_texts=True)
    compress(shared_session, request, bundle.with_name("own"))
    asked = json.loads((bundle.with_name("own") / "recheck" / "evidence.json").read_text())
    assert asked["own"] == 64
    assert set(asked["texts"][-64:]) <= set(mine)
    assert outcomes(check(bundle.with_name("own"), only="answers"))["answers"] == "met"


# Files


@pytest.mark.parametrize("change", [{"latency_ms": 1e6}, {"percentile": 50.0}, {"judge": "replay"}])
def test_a_budget_that_was_edited_is_seen(bundle, change):
    edit(bundle / "verdict.json", lambda v: v["budget"].update(change))
    with pytest.raises(UsageError, match=r"is not that of edgekd\.yaml"):
        check(bundle, only="answers")


def test_a_report_that_is_written_again_is_the_same_file(bundle, capsys):
    before = (bundle / "report.html").read_bytes()
    assert run(capsys, "report", str(bundle))[0] == 0
    assert (bundle / "report.html").read_bytes() == before
    assert run(capsys, "report", str(bundle), "--format", "markdown")[0] == 0
    assert outcomes(check(bundle, only="answers"))["files"] == "met"
    assert "there is no folder" in refused(capsys, "report", str(bundle), "--out", str(bundle / "none" / "r.html"))


@pytest.mark.parametrize("name", ["tokenizer.json", "recheck/anchor.onnx", "README.md"])
def test_changed_file_is_refused(bundle, name):
    path = bundle / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UsageError, match=f"{name}: does not match its checksum"):
        check(bundle)


def test_missing_file_is_refused(bundle):
    (bundle / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json: missing"):
        check(bundle)


def test_truncated_model_is_refused(bundle):
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UsageError, match=r"model\.onnx: does not match its checksum"):
        check(bundle)
    sign(bundle)
    with pytest.raises(UsageError, match=r"model\.onnx: onnxruntime cannot load it"):
        check(bundle)


def test_verdict_that_names_no_model_proves_nothing(bundle):
    edit(bundle / "verdict.json", lambda v: v.update(files={}))
    with pytest.raises(UsageError, match=r"no checksum of model\.onnx"):
        check(bundle)


def test_newer_schema_says_upgrade(bundle):
    edit_evidence(bundle, lambda e: e.update(schema_version=2))
    with pytest.raises(UsageError, match=r"evidence\.json: schema_version 2 is newer"):
        check(bundle)
    edit(bundle / "verdict.json", lambda v: v.update(schema_version=2))
    with pytest.raises(UsageError, match=r"verdict\.json: schema_version 2 is newer"):
        check(bundle)


def test_zero_texts_are_refused(bundle):
    edit_evidence(bundle, lambda e: e.update(texts=[], rows=[]))
    with pytest.raises(UsageError, match=r"evidence\.json: texts"):
        check(bundle)


def test_answers_to_other_texts_are_refused(bundle):
    edit_logits(bundle, lambda rows: rows[:-1])
    with pytest.raises(UsageError, match=r"logits\.npy: not the answers"):
        check(bundle)
    (bundle / "recheck" / "logits.npy").write_bytes(b"\x80pickle")
    sign(bundle)
    with pytest.raises(UsageError, match=r"logits\.npy: cannot be read"):
        check(bundle)


# Answers


def test_another_model_is_found_by_its_answers(bundle):
    """The head's columns are turned round: the file is whole, and every label is another."""
    model = onnx.load(bundle / "model.onnx")
    for tensor in model.graph.initializer:
        if "head.output" in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 1, axis=-1), tensor.name))
    onnx.save(model, bundle / "model.onnx")
    sign(bundle)
    found = check(bundle, only="answers")
    answers = next(c for c in found.criteria if c.kind == "answers")
    assert (found.outcome, found.exit_code) == ("missed", 1)
    assert answers.value < 0.2
    assert "of 64 stored texts, such as 'The meeting" in answers.explanation
    assert " then, " in answers.explanation


def stored_flip(margin):
    """Stored logits whose first row prefers another label than the model does, by `margin` of their size."""

    def change(rows):
        size = np.sqrt(np.square(rows - rows.mean(-1, keepdims=True)).mean())
        best, second = np.argsort(rows[0])[::-1][:2]
        rows[0, second] = rows[0, best] + margin * size
        return rows

    return change


def test_flip_of_a_tie_does_not_count(bundle):
    edit_logits(bundle, stored_flip(0.005))
    assert outcomes(check(bundle, only="answers"))["answers"] == "met"


def test_flip_that_is_no_tie_counts(bundle):
    edit_logits(bundle, stored_flip(0.2))
    found = check(bundle, only="answers")
    assert outcomes(found)["answers"] == "missed"
    assert "other labels on 1 of 64" in found.criteria[1].explanation


def test_drift_alone_is_missed(bundle):
    edit_logits(bundle, lambda rows: rows * 1.1)
    assert outcomes(check(bundle, only="answers")) == {"files": "met", "answers": "met", "drift": "missed"}


def test_logits_that_are_not_numbers_are_missed(bundle, monkeypatch):
    monkeypatch.setattr(
        "edgekd.proof.evidence.answers", lambda b, texts, *_: [np.full((1, 4), np.nan, np.float32)] * len(texts)
    )
    found = check(bundle, only="answers")
    assert outcomes(found) == {"files": "met", "answers": "missed", "drift": "missed"}
    assert found.criteria[1].value == 0.0
    json.loads(found.model_dump_json())


def test_only_names_what_is_checked(bundle):
    assert set(outcomes(check(bundle, only="answers"))) == {"files", "answers", "drift"}
    assert set(outcomes(check(bundle, only="latency"))) == {"files", "latency"}


# Latency


def test_another_machine_is_judged_beside_the_anchor(bundle, monkeypatch):
    elsewhere(monkeypatch)
    found = check(bundle, only="latency")
    latency = found.criteria[-1]
    assert (found.outcome, found.judged) == ("met", "ratio")
    assert latency.limit == 1.15
    assert latency.value == pytest.approx(1.0, abs=0.02)
    assert latency.interval[0] < latency.value < latency.interval[1] < 1.1


def slowed(factor):
    """Evidence of a bundle that was `factor` times faster beside its anchor when it was made."""

    def change(evidence):
        ratio = evidence["ratio"]
        ratio["value"] /= factor
        ratio["interval"] = [end / factor for end in ratio["interval"]]

    return change


def test_regression_on_another_machine_is_missed(bundle, monkeypatch):
    edit_evidence(bundle, slowed(1.5))
    elsewhere(monkeypatch)
    found = check(bundle, only="latency")
    assert (found.outcome, found.exit_code) == ("missed", 1)
    assert found.criteria[-1].value == pytest.approx(1.5, abs=0.03)
    assert check(bundle, only="latency", max_regression=1.7).outcome == "met"


def test_regression_at_the_limit_is_inconclusive(bundle, monkeypatch):
    edit_evidence(bundle, slowed(1.15))
    elsewhere(monkeypatch)
    assert check(bundle, only="latency").exit_code == 5


def test_judge_here_judges_the_budget_anywhere(bundle, monkeypatch):
    edit_evidence(bundle, slowed(1.5))
    elsewhere(monkeypatch)
    found = check(bundle, only="latency", judge_here=True)
    assert (found.outcome, found.judged, found.criteria[-1].unit) == ("met", "absolute", "ms")
    assert check(bundle, only="latency", latency_ms=0.0001).outcome == "missed"
    assert "of response time" in check(bundle, only="latency", clock="response").criteria[-1].explanation


def test_device_elsewhere_is_unmeasured_unless_this_is_it(bundle):
    path = bundle / "edgekd.yaml"
    path.write_text(path.read_text().replace("device: local", "device: pi"))
    sign(bundle)
    found = check(bundle)
    assert (outcomes(found)["latency"], found.exit_code) == ("unmeasured", 6)
    assert "'pi' is elsewhere" in found.criteria[-1].explanation
    assert check(bundle, judge_here=True).outcome == "met"


def test_budget_on_real_texts_needs_them(bundle):
    """Without them the machine's own budget cannot be judged, only whether the bundle became slower."""
    path = bundle / "edgekd.yaml"
    path.write_text(path.read_text().replace("judge: fixed", "judge: replay"))
    sign(bundle)
    edit(bundle / "verdict.json", lambda v: v["budget"].update(judge="replay"))
    assert check(bundle, only="latency").judged == "ratio"
    edit_evidence(bundle, lambda e: e.update(own=5))
    found = check(bundle, only="latency")
    assert found.judged == "absolute"
    assert "on the texts in the bundle" in found.criteria[-1].explanation


def test_memory_is_judged_again(bundle):
    path = bundle / "edgekd.yaml"
    path.write_text(path.read_text().replace("max_memory_mb: null", "max_memory_mb: 0.5"))
    sign(bundle)
    assert outcomes(check(bundle, only="latency"))["memory"] == "missed"


# An older bundle


@pytest.fixture
def older(bundle):
    shutil.rmtree(bundle / "recheck")
    sign(bundle)
    return bundle


def test_older_bundle_says_what_is_left_out(older):
    found = check(older)
    assert outcomes(found) == {"files": "met", "latency": "met"}
    assert "made before" in found.notes[0]
    with pytest.raises(UsageError, match="make it again"):
        check(older, only="answers")


def test_older_bundle_on_another_machine_is_unmeasured(older):
    edit(older / "verdict.json", lambda v: v["machine"].update(cpu_model="Other"))
    found = check(older)
    assert found.exit_code == 6
    assert "--judge-here" in found.criteria[-1].explanation
    assert check(older, judge_here=True).outcome == "met"


# What changed, and the command


def test_changes_are_named(bundle):
    def change(verdict):
        verdict["versions"]["onnxruntime"] = "0.1.0"
        verdict["versions"]["torch"] = "0.1"
        verdict["machine"]["cpu_model"] = "Abacus"
        verdict["machine"]["instruction_sets"] = []

    edit(bundle / "verdict.json", change)
    from edgekd.latency.machine import read_machine

    found = {c.what: (c.then, c.now) for c in changes(read_verdict(bundle / "verdict.json"), read_machine())}
    assert found["onnxruntime"][0] == "0.1.0"
    assert found["cpu model"][0] == "Abacus"
    assert set(found) <= {"onnxruntime", "cpu model", "instruction sets"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"max_regression": 0}, "--max-regression 0"),
        ({"max_regression": float("nan")}, "--max-regression nan"),
        ({"percentile": 100}, "--percentile 100"),
        ({"percentile": 0.95}, "--percentile 0.95: .* 95, not 0.95"),
        ({"percentile": float("nan")}, "--percentile nan"),
        ({"latency_ms": -1}, "--latency-ms -1"),
        ({"only": "answers", "judge_here": True}, "--only answers measures no latency"),
        ({"only": "answers", "max_regression": 1.15}, "--only answers measures no latency"),
        ({"latency_ms": 5, "max_regression": 1.15}, "--max-regression is for the ratio"),
        ({"only": "answers", "clock": "response"}, "--only answers measures no latency"),
    ],
)
def test_impossible_flags_are_refused(bundle, asked, message):
    with pytest.raises(UsageError, match=message):
        check(bundle, **asked)


def test_command_prints_every_criterion(capsys, bundle):
    code, out, err = run(capsys, "validate", bundle, "--json")
    found = json.loads(out)
    assert (code, found["outcome"], found["exit_code"]) == (0, "met", 0)
    assert [c["kind"] for c in found["criteria"]] == ["files", "answers", "drift", "latency"]
    assert "answers unchanged: the same labels on all 64 stored texts" in err
    assert "p95 of service time is at most" in err


def test_command_exit_codes(capsys, bundle):
    edit_logits(bundle, lambda rows: rows * 1.1)
    assert run(capsys, "validate", bundle, "--only", "answers")[0] == 1
    assert run(capsys, "validate", bundle, "--only", "latency")[0] == 0
    (bundle / "model.onnx").unlink()
    assert "missing" in refused(capsys, "validate", bundle)


def test_command_needs_neither_torch_nor_onnx(bundle):
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'optimum', 'datasets', 'huggingface_hub', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from edgekd.cli import main\n"
        f"main(['validate', {str(bundle)!r}, '--only', 'answers'])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_profile_limits_reach_the_request(fast_profile):
    found = override(fast_profile, {"accept.max_mb": 20, "accept.max_memory_mb": 300})
    assert (found.accept.max_mb, found.accept.max_memory_mb) == (20, 300)
    with pytest.raises(UsageError, match="max_mb"):
        override(fast_profile, {"accept.max_mb": 0})
