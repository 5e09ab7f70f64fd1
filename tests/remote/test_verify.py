"""A bundle for a device that is elsewhere: planned from its probe, proved by its verify kit."""

import base64
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import UsageError
from edgekd.latency.targets.build import build_target
from edgekd.models.teacher import load_teacher
from edgekd.pipeline.compress import compress
from edgekd.plan.device import Device
from edgekd.plan.space import widths_of
from edgekd.profiles import load_profile
from edgekd.progress import Progress
from edgekd.proof.validate import CheckOptions
from edgekd.records.result import read_record
from edgekd.records.verdict import read_verdict
from edgekd.remote import verify as elsewhere
from edgekd.remote.devices import add_device, find_probe
from edgekd.remote.kit import seal
from edgekd.remote.predict import predict_teacher
from edgekd.remote.probe import make_plan_kit
from edgekd.remote.verify import Reference, _kept, judge_measured, keep_reference, make_verify_kit
from edgekd.runtime.encodings import Encodings
from edgekd.session import Session
from edgekd.settings.profile import override
from edgekd.settings.request import Request
from edgekd.settings.target import CpuTarget, SessionSpec
from edgekd.settings.task import JointIntentSlots, MultiLabelClassification, TextRegression, TokenClassification
from edgekd.store import Store
from edgekd.tasks.build import build_task

ROOT = Path(__file__).parents[2]

# What a kit may import beside itself, even if the Python that runs it has much more.
FORBID = """
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
class Forbid(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("torch", "pydantic", "transformers", "onnx", "yaml", "click", "rich"):
            raise ModuleNotFoundError(f"forbidden in a kit: {name}", name=top)
        spec = PathFinder.find_spec(name, path) if top == "edgekd" else None
        if spec is not None and str(spec.origin).startswith(ROOT):
            raise ModuleNotFoundError(f"not the kit's own: {spec.origin}", name=name)
        return None
sys.meta_path.insert(0, Forbid())
"""


def run_kit(folder, script, *arguments, path=()):
    """Run a kit's script in an environment that has no more than a kit may use; children included."""
    guard = folder.parent / "guard"
    guard.mkdir(exist_ok=True)
    (guard / "sitecustomize.py").write_text(FORBID.replace("ROOT", repr(str(ROOT) + os.sep)))
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "EDGEKD_CACHE")}
    environment["PYTHONPATH"] = os.pathsep.join([str(guard), *map(str, path)])
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def unpack(archive, folder):
    with zipfile.ZipFile(archive) as kit:
        kit.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory, engine):
    return Session(Store(tmp_path_factory.mktemp("cache")), engine)


@pytest.fixture(scope="module")
def device_json(tiny_teacher, tmp_path_factory):
    """What a kit for the tiny teacher writes when it runs outside the checkout."""
    folder = tmp_path_factory.mktemp("plan")
    shape = load_teacher(tiny_teacher).hosted[0]
    make_plan_kit(
        folder / "plan-kit.zip", [shape], [widths_of(shape, (1.0,))], ("fp32", "int8"), session=SessionSpec(threads=2),
        lengths=[32], batch_size=1, options=load_profile("cpu").export, progress=Progress(),
    )  # fmt: skip
    # The kit asks for two threads, the device gives one.
    done = run_kit(
        unpack(folder / "plan-kit.zip", folder / "kit"), "probe.py", "--threads", 1, "--out", folder / "device.json"
    )
    assert done.returncode == 0, done.stderr
    return folder / "device.json"


@pytest.fixture(scope="module")
def bundle(session, device_json, tiny_teacher, intent_data, fast_profile, tmp_path_factory):
    profile = add_device(session.store, device_json, "box")
    wanted = {name: getattr(fast_profile, name) for name in ("search", "distill", "accept")}
    # A second: even on a busy machine a student fits it, and so does the teacher (the fast profile wants a student).
    profile = override(profile.model_copy(update=wanted), {"budget.latency_ms": 1000.0})
    request = Request(teacher=str(tiny_teacher), data=str(intent_data), profile=profile)
    out = tmp_path_factory.mktemp("out") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        # The kit measures for seconds, not for a minute: the budget is far off.
        patch.setattr(elsewhere, "LOOKS_SECONDS", (7.0,))
        patch.setattr(elsewhere, "REPORTED_SECONDS", 1.0)
        return out, compress(session, request, out)


@pytest.fixture(scope="module")
def result_json(bundle, tmp_path_factory):
    """What the verify kit writes outside the checkout."""
    folder = tmp_path_factory.mktemp("verify")
    done = run_kit(unpack(bundle[0] / "verify-kit.zip", folder / "kit"), "verify.py", "--out", folder / "result.json")
    assert done.returncode == 0, done.stderr
    return folder / "result.json"


def test_it_is_unmeasured_until_the_device_has_spoken(bundle, device_json):
    _, result = bundle
    assert (result.outcome, result.exit_code) == ("unmeasured", 6)
    latency = next(c for c in result.criteria if c.kind == "latency")
    assert latency.outcome == "unmeasured"
    assert "predicted from the probe of box" in latency.explanation
    assert result.latency.fixed is None
    assert result.latency.replay is None
    assert all(row.p50_ms is None for row in result.quality)
    assert result.machine == json.loads(device_json.read_text())["machine"]
    assert all(c.measured_ms is None for c in result.candidates)
    assert "predicted from the probe of box" in result.chosen.note


def test_a_prediction_rests_on_tokenising_here(bundle, session, tiny_teacher):
    probe = find_probe(session.store, "box")
    shape = load_teacher(tiny_teacher).hosted[0]
    found = predict_teacher(probe, "box", shape, ("fp32",), 32, 95.0, 1.0, {})
    assert found.overhead_ms == 1.0
    assert found.median_ms["fp32"] > 1.0
    device = Device.of(build_target(CpuTarget(device="box")), session.store)
    assert device.here.spec.device == "local"


def test_texts_are_in_the_kit_and_nowhere_else_in_the_bundle(bundle, intent_data):
    out, _ = bundle
    text = json.loads((intent_data / "test.jsonl").read_text().splitlines()[0])["text"].encode()
    holding = {p.name for p in out.rglob("*") if p.is_file() and text in p.read_bytes()}
    assert holding == set()
    with zipfile.ZipFile(out / "verify-kit.zip") as kit:
        assert text in kit.read("texts.json")
        assert "your own test set" in kit.read("README.md").decode()
    assert "verify-kit.zip" not in read_verdict(out / "verdict.json").files


def test_verdict_from_the_device(bundle, result_json):
    out, _ = bundle
    found = judge_measured(out, result_json)
    assert [c.kind for c in found.criteria] == ["files", "latency", "quality"]
    assert any("100.0% of its answers" in note for note in found.notes)
    assert found.criteria[2].outcome == "met"
    # A busy machine may leave it open, but can never miss a budget of a second, nor meet one of ten nanoseconds.
    assert found.criteria[1].outcome in ("met", "inconclusive")
    assert not any("at p95 asked for" in note for note in found.notes)
    found = judge_measured(out, result_json, CheckOptions(latency_ms=1e-5))
    assert found.criteria[1].outcome in ("missed", "inconclusive")
    assert "the device took as many samples as 1000 ms at p95 asked for" in found.notes


def test_a_budget_that_was_edited_is_seen(bundle, result_json, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle[0], copy)
    verdict = json.loads((copy / "verdict.json").read_text())
    verdict["budget"]["latency_ms"] *= 1000
    (copy / "verdict.json").write_text(json.dumps(verdict))
    with pytest.raises(UsageError, match=r"is not that of edgekd\.yaml"):
        judge_measured(copy, result_json)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"percentile": 200}, "--percentile 200: "),
        ({"percentile": 0.95}, "--percentile 0.95: .* 95, not 0.95"),
        ({"percentile": float("nan")}, "--percentile nan: "),
        ({"latency_ms": 0}, "--latency-ms 0: "),
        ({"latency_ms": float("inf")}, "--latency-ms inf: "),
        ({"max_regression": -5}, "leave out --only, --judge-here and --max-regression"),
        ({"max_regression": 1.15}, "leave out --only, --judge-here and --max-regression"),
        ({"only": "latency"}, "leave out --only"),
    ],
)
def test_what_cannot_be_asked_of_a_result_is_refused(bundle, result_json, asked, line):
    with pytest.raises(UsageError, match=line):
        judge_measured(bundle[0], result_json, CheckOptions(**asked))


def changed(source, target, **values):
    """A result with other values, sealed again: what an edit that went unnoticed would give."""
    content = json.loads(source.read_text()) | values
    target.write_text(json.dumps(seal(content)))
    return target


def test_quality_is_judged_from_the_answers_of_the_device(bundle, result_json, tmp_path):
    """All answers the same label: whatever the bundle answered here, it keeps nothing there."""
    rows = np.frombuffer(base64.b64decode(json.loads(result_json.read_text())["logits"]), "<f4").reshape(-1, 4).copy()
    rows[:, 0] = 1e3
    worse = changed(result_json, tmp_path / "r.json", logits=base64.b64encode(rows.tobytes()).decode())
    found = judge_measured(bundle[0], worse)
    assert found.criteria[2].outcome == "missed"
    assert found.exit_code == 1
    assert not any("100.0% of its answers" in note for note in found.notes)


def test_logits_that_are_too_few_or_no_numbers(bundle, result_json, tmp_path):
    few = changed(result_json, tmp_path / "r.json", logits=base64.b64encode(np.zeros(8, "<f4").tobytes()).decode())
    with pytest.raises(UsageError, match="8 logits where 120 x 4"):
        judge_measured(bundle[0], few)
    none = np.full((120, 4), np.nan, "<f4").tobytes()
    with pytest.raises(UsageError, match="finite"):
        judge_measured(bundle[0], changed(result_json, few, logits=base64.b64encode(none).decode()))


def test_result_edited_by_hand(bundle, result_json, tmp_path):
    content = json.loads(result_json.read_text())
    content["latency"]["fixed"]["rounds"][0]["wall_ms"][0] *= 0.5
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="edited"):
        judge_measured(bundle[0], tmp_path / "r.json")


def test_result_of_another_schema_version(bundle, result_json, tmp_path):
    with pytest.raises(UsageError, match="schema version 2"):
        judge_measured(bundle[0], changed(result_json, tmp_path / "r.json", schema_version=2))


def test_result_of_another_bundle(bundle, result_json, tmp_path):
    other = json.loads(result_json.read_text())["bundle"] | {"model.onnx": "0" * 64}
    with pytest.raises(UsageError, match="measured with another"):
        judge_measured(bundle[0], changed(result_json, tmp_path / "r.json", bundle=other))


def test_bundle_that_does_not_match_its_checksums(bundle, result_json, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle[0], copy)
    with (copy / "verify.json").open("a") as handle:
        handle.write(" ")
    with pytest.raises(UsageError, match=r"verify\.json: does not match its checksum"):
        judge_measured(copy, result_json)


def test_kit_that_does_not_match_its_checksums(bundle, tmp_path):
    kit = unpack(bundle[0] / "verify-kit.zip", tmp_path / "kit")
    with (kit / "bundle" / "model.onnx").open("ab") as handle:
        handle.write(b"x")
    done = run_kit(kit, "verify.py")
    assert done.returncode == 2
    assert "model.onnx: does not match its checksum" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (kit / "result.json").exists()


def test_kit_that_cannot_write_its_answer_says_so_at_once(bundle, tmp_path):
    """Before it measures: nothing but the error is said."""
    kit = unpack(bundle[0] / "verify-kit.zip", tmp_path / "kit")
    done = run_kit(kit, "verify.py", "--out", "none/result.json")
    assert done.returncode == 2
    assert done.stderr.startswith("error: none/result.json: there is no folder none")
    assert done.stderr.count("\n") == 1


def test_kit_without_its_kit_json(bundle, tmp_path):
    kit = unpack(bundle[0] / "verify-kit.zip", tmp_path / "kit")
    (kit / "kit.json").unlink()
    done = run_kit(kit, "verify.py")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_bundle_of_this_machine_has_nothing_to_judge_elsewhere(bundle, result_json, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle[0], copy)
    verdict = json.loads((copy / "verdict.json").read_text())
    del verdict["files"]["verify.json"]
    (copy / "verdict.json").write_text(json.dumps(verdict))
    (copy / "verify.json").unlink()
    with pytest.raises(UsageError, match="only a bundle for a device that is elsewhere"):
        judge_measured(copy, result_json)


def test_kit_without_texts(bundle, fast_profile):
    with pytest.raises(UsageError, match="no texts"):
        make_verify_kit(bundle[0], fast_profile, 1.0, ["a"], ["a"], [])


def test_words_are_judged_by_their_spans(tmp_path):
    """Two texts of three and two words, the last word of the first cut off: the rows find their words again."""
    task = build_task(TokenClassification(), ("O", "B-x", "I-x"))
    encodings = Encodings(
        np.zeros(0, np.int32), np.zeros(3, np.int64), answer_positions=np.zeros(4, np.int32),
        answer_words=np.array([0, 1, 0, 1], np.int32), answer_offsets=np.array([0, 2, 4]),
        words=np.array([3, 2], np.int32),
    )  # fmt: skip
    gold = [["B-x", "I-x", "O"], ["O", "B-x"]]
    right = np.array([1, 2, 0, 1])
    teacher = task.counts(gold, task.answers(right, encodings))
    keep_reference(tmp_path, task, "span F1", gold, teacher, right, encodings)
    reference = read_record(tmp_path / "verify.json", Reference)
    assert _kept(reference, right).value == 1.0
    # The second span is missed: one of two found, none wrong.
    assert _kept(reference, np.array([1, 2, 0, 0])).student == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("spec", "labels", "gold", "rows", "other", "kept"),
    [
        (MultiLabelClassification(), ("a", "b"), [["a"], []], [[1.0, -1], [-1, -1]], [[1.0, 1], [-1, -1]], 0.5),
        (TextRegression(), ("value",), [0.5, 1.5, 3.0], [[0], [1], [2]], [[0], [2], [1]], 0.5),
        (
            JointIntentSlots(), ("go", "stop", "O", "B-x"), [["go", "B-x"], ["stop", "O"]],
            [[1.0, 0, -9, -9], [-9, -9, 0, 1], [0, 1, -9, -9], [-9, -9, 1, 0]],
            [[1.0, 0, -9, -9], [-9, -9, 0, 1], [1, 0, -9, -9], [-9, -9, 1, 0]], 2 / 3,
        ),
    ],
)  # fmt: skip
def test_answers_of_every_task_are_judged(tmp_path, spec, labels, gold, rows, other, kept):
    task = build_task(spec, labels)
    encodings = Encodings(np.zeros(0, np.int32), np.zeros(len(gold) + 1, np.int64))
    if isinstance(spec, JointIntentSlots):
        encodings = Encodings(
            np.zeros(0, np.int32), np.zeros(3, np.int64), answer_positions=np.array([0, 1, 0, 1], np.int32),
            answer_words=np.array([-1, 0, -1, 0], np.int32), answer_offsets=np.array([0, 2, 4]),
            words=np.array([1, 1], np.int32),
        )  # fmt: skip
    right = task.decide(np.array(rows, np.float32))
    teacher = task.counts(gold, task.answers(right, encodings))
    keep_reference(tmp_path, task, task.metric_name, gold, teacher, right, encodings)
    reference = read_record(tmp_path / "verify.json", Reference)
    assert _kept(reference, right).value == pytest.approx(1.0)
    assert _kept(reference, task.decide(np.array(other, np.float32))).value == pytest.approx(kept)
