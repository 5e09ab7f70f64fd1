"""--track: what is refused, what is logged, and that neither stdout nor the exit code knows of it."""

import json
import struct
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import yaml
from accelerate import tracking
from tensorboardX.proto import event_pb2

from edgekd.cli import main
from edgekd.errors import UnavailableError, UsageError
from edgekd.pipeline import track
from edgekd.records.result import (
    Criterion,
    DataSummary,
    Latency,
    Percentile,
    QualityRow,
    Result,
    TeacherSummary,
    Timing,
)
from edgekd.records.training import Curve, Point

MOMENT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def made():
    """A run of two stages; the first is judged by its loss alone."""
    percentiles = tuple(Percentile(q=q, value_ms=ms) for q, ms in ((50, 8.0), (95, 9.5), (99, 11.0)))
    return Result(
        name="intents",
        request={"teacher": "./bert", "plan": None, "profile": {"stages": [{"epochs": 3, "on": True}], "empty": []}},
        budget_ms=10,
        data=DataSummary(task="text-classification", metric="accuracy", labels=4, rows={}),
        teacher=TeacherSummary(name="bert", family="bert", shape="3 layers", parameters=1),
        training=(
            Curve(name="stage 1: relations", points=(Point(epoch=0.5, loss=2.0, step=5),)),
            Curve(name="stage 2: logits", points=tuple(
                Point(epoch=i, loss=1.0 / i, score=0.4 * i, step=10 * i) for i in (1, 2)
            )),
        ),
        quality=(
            QualityRow(name="teacher, INT8", score=0.95),
            QualityRow(name="TF-IDF + logistic regression", score=0.86),
        ),
        latency=Latency(fixed=Timing(texts="16 tokens", calls=9, percentiles=percentiles)),
        criteria=(
            Criterion(name="latency p95", limit=10, value=9.5, outcome="met"),
            Criterion(name="quality retained", limit=0.97, outcome="missed"),
        ),
        files={"model.onnx": "ab12"},
        started=MOMENT,
        finished=MOMENT,
    )  # fmt: skip


def test_parameters_are_flat_and_plain():
    assert track.parameters(made()) == {
        "teacher": "./bert", "profile.stages.0.epochs": 3, "profile.stages.0.on": True, "bundle": "intents",
        "model_sha256": "ab12", "task": "text-classification", "metric": "accuracy", "outcome": "missed",
    }  # fmt: skip


def test_steps_go_on_from_stage_to_stage():
    assert list(track.curve(made())) == [
        (5, {"training/stage_1_relations/epoch": 0.5, "training/stage_1_relations/loss": 2.0}),
        (15, {f"training/stage_2_logits/{k}": v for k, v in (("epoch", 1), ("loss", 1.0), ("validation", 0.4))}),
        (25, {f"training/stage_2_logits/{k}": v for k, v in (("epoch", 2), ("loss", 0.5), ("validation", 0.8))}),
    ]


def test_figures_are_the_verdicts():
    assert track.figures(made()) == {
        "verdict/exit_code": 1, "verdict/latency_p95": 9.5, "latency/fixed/p50_ms": 8.0, "latency/fixed/p95_ms": 9.5,
        "latency/fixed/p99_ms": 11.0, "test/teacher_int8": 0.95, "test/tf_idf_logistic_regression": 0.86,
    }  # fmt: skip


class Recorder(tracking.GeneralTracker):
    """A tracker that keeps what it is told, under the name of one that needs a server."""

    name = "mlflow"
    requires_logging_directory = False
    calls = []
    broken = False

    def __init__(self, project, run_name):
        super().__init__()
        self.calls.append(("start", project, run_name))

    @property
    def tracker(self):
        return self.calls

    def store_init_configuration(self, values):
        sys.stdout.write("a tracker that likes to talk")
        self.calls.append(("parameters", values))

    def log(self, values, step=None):
        if self.broken:
            raise ConnectionError("no answer\nfrom tracking.example:5000")
        self.calls.append(("log", step, values))

    def finish(self):
        self.calls.append(("finish",))


@pytest.fixture
def recorder(monkeypatch):
    """The recorder in place of MLflow, whose library counts as installed."""
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Recorder)
    monkeypatch.setattr(tracking, "_available_trackers", [tracking.LoggerType.MLFLOW])
    monkeypatch.setattr(Recorder, "calls", [])
    return Recorder


def test_one_run_is_logged_and_stdout_stays_clean(recorder, capsys):
    result = made()
    track.track(result, "mlflow")
    (start, parameters, *logs, end) = recorder.calls
    assert start == ("start", "edgekd", "intents-20260304-050607")
    assert parameters == ("parameters", track.parameters(result))
    assert logs == [
        *(("log", step, values) for step, values in track.curve(result)), ("log", None, track.figures(result))
    ]  # fmt: skip
    assert end == ("finish",)
    out, err = capsys.readouterr()
    assert out == ""
    assert "likes to talk" in err


def test_the_bundle_is_kept_where_the_tracker_keeps_files(recorder, monkeypatch, tmp_path):
    kept = []
    monkeypatch.setitem(track._KEEP, "mlflow", lambda run, bundle: kept.append((run is recorder.calls, bundle)))
    track.track(made(), "mlflow", bundle=tmp_path)
    assert kept == [(True, tmp_path)]
    track.track(made(), "mlflow")
    assert len(kept) == 1


def test_an_unknown_tracker_is_told_the_nearest():
    with pytest.raises(UsageError, match="--track tensorbord: no such tracker; did you mean 'tensorboard'"):
        track.check_tracker("tensorbord", None)
    with pytest.raises(UsageError, match=r"--track x: no such tracker; known: aim, .*wandb"):
        track.check_tracker("x", None)


def test_a_library_that_is_missing_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(UnavailableError, match="--track wandb: its library is not installed: pip install wandb"):
        track.check_tracker("wandb", None)


def test_a_folder_is_refused_where_it_would_do_nothing(recorder, tmp_path):
    track.check_tracker("mlflow", None)
    with pytest.raises(UsageError, match="--track-dir goes without --track mlflow"):
        track.check_tracker("mlflow", tmp_path)


def edgekd(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return (end.value.code, *capsys.readouterr())


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--track", "tensorbord"), "did you mean 'tensorboard'?"),
        (("--track-dir", "runs"), "--track-dir needs --track"),
    ],
)
def test_wrong_flags_end_before_the_run(capsys, flags, line):
    code, out, err = edgekd(capsys, "compress", "--demo", "--latency-ms", "5", "--dry-run", *flags)
    assert (code, out) == (2, "")
    assert line in err


def test_nothing_is_imported_unless_asked():
    script = (
        "import sys\nfrom edgekd.cli.tracking import check_tracking, log_runs\n"
        "check_tracking({'track': None, 'track_dir': None})\nlog_runs({'track': None}, [], None)\n"
        "sys.exit(str({'accelerate', 'torch', 'edgekd.pipeline.track'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stderr.strip() == "set()"


@pytest.fixture
def asked(tmp_path, tiny_teacher, intent_data, fast_profile, shared_session):
    """Arguments of a run of seconds on the fake target."""
    profile = fast_profile.model_dump(mode="json")
    profile["distill"]["stages"][0]["training"]["epochs"] = 2
    profile["accept"]["min_retained"] = 0.1
    (tmp_path / "fake.yaml").write_text(yaml.safe_dump(profile))
    return (
        "compress", "--teacher", tiny_teacher, "--data", intent_data, "--profile", tmp_path / "fake.yaml",
        "--cache-dir", shared_session.store.root, "--out", tmp_path / "bundle", "--json",
    )  # fmt: skip


def events(folder):
    """(tag, step, value) of every scalar in TensorBoard's files: records of length, checksum, event, checksum."""
    for file in folder.rglob("events.*"):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield value.tag, event.step, value.simple_value


def test_tensorboard_holds_the_curve_and_the_verdict(capsys, tmp_path, asked):
    code, out, err = edgekd(capsys, *asked, "--track", "tensorboard", "--track-dir", tmp_path / "runs")
    assert code == 0, err
    verdict = json.loads(out)
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("bundle-20")
    found = list(events(run))
    scalars = {tag: value for tag, _, value in found}
    for percentile in verdict["latency"]["fixed"]["percentiles"]:
        assert scalars[f"latency/fixed/p{percentile['q']:g}_ms"] == pytest.approx(percentile["value_ms"])
    (shipped,) = [row for row in verdict["quality"] if row["shipped"]]
    assert pytest.approx(shipped["score"]) in [scalars["test/student_fp32"], scalars.get("test/student_int8")]
    steps = sorted(step for tag, step, _ in found if tag == "training/student/loss")
    assert len(steps) >= 2
    assert steps[0] > 1
    assert steps == sorted(step for tag, step, _ in found if tag == "training/student/validation")
    (parameters,) = [yaml.safe_load(file.read_text()) for file in run.rglob("hparams.yml")]
    assert parameters["profile.distill.stages.0.training.epochs"] == 2
    assert parameters["outcome"] == verdict["outcome"] == "met"
    assert parameters["model_sha256"] == verdict["model"]["sha256"]


def test_a_tracker_that_fails_costs_one_line(capsys, asked, recorder, monkeypatch):
    monkeypatch.setattr(Recorder, "broken", True)
    code, out, err = edgekd(capsys, *asked, "--track", "mlflow")
    assert code == 0
    assert json.loads(out)["outcome"] == "met"
    assert "--track mlflow: bundle was not logged: no answer from tracking.example:5000" in err
    assert recorder.calls[-1] == ("finish",)
