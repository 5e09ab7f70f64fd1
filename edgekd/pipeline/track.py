"""A finished run, logged to the tracker that was asked for: TensorBoard, MLflow, W&B, whatever accelerate knows."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import edgekd
from edgekd.errors import UnavailableError, UsageError, meant
from edgekd.records.result import Result
from edgekd.resources import resource

PROJECT = "edgekd"
DEFAULT_FOLDER = Path("runs")

# What accelerate hands on to a tracker's library to name the run; elsewhere the library finds a name itself.
_RUN_NAME = {
    "clearml": "task_name",
    "mlflow": "run_name",
    "swanlab": "experiment_name",
    "trackio": "name",
    "wandb": "name",
}

Value = bool | int | float | str


def check_tracker(name: str, folder: Path | None) -> None:
    """Refuse a tracker that could not log the run, before the run.

    Args:
        name: As accelerate calls it, such as "tensorboard".
        folder: Where its files go, if that was said.

    Raises:
        UsageError: accelerate knows no such tracker, or it takes no folder.
        UnavailableError: Its library is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in LOGGER_TYPE_TO_CLASS:
        hint = meant(name, LOGGER_TYPE_TO_CLASS) or f"known: {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}"
        raise UsageError(f"--track {name}: no such tracker; {hint}")
    if folder is not None and not LOGGER_TYPE_TO_CLASS[name].requires_logging_directory:
        raise UsageError(f"--track-dir goes without --track {name}: its own settings say where runs are kept")
    if name not in [str(found) for found in get_available_trackers()]:
        raise UnavailableError(f"--track {name}: its library is not installed: pip install {name}")


def track(result: Result, name: str, folder: Path | None = None, bundle: Path | None = None) -> None:
    """Log a finished run: its parameters, the student's training curve, the verdict's figures, and the bundle.

    What a tracker prints goes to stderr: stdout holds the verdict.

    Args:
        name: A tracker that `check_tracker` accepts.
        folder: Where the files of one that writes files go; None is `DEFAULT_FOLDER`.
        bundle: What the run made, kept as an artefact where the tracker keeps files (MLflow, W&B).

    Raises:
        Exception: Whatever the tracker's library raises, such as that its server cannot be reached.
    """
    from accelerate import Accelerator
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    run = f"{result.name}-{result.started:%Y%m%d-%H%M%S}"
    writes_files = LOGGER_TYPE_TO_CLASS[name].requires_logging_directory
    named = {name: {_RUN_NAME[name]: run}} if name in _RUN_NAME else {}
    with redirect_stdout(sys.stderr):
        accelerator = Accelerator(log_with=name, project_dir=folder or DEFAULT_FOLDER)
        # Those that write files have no projects, but a folder for each run.
        accelerator.init_trackers(run if writes_files else PROJECT, parameters(result), named)
        try:
            for step, values in curve(result):
                accelerator.log(values, step=step)
            accelerator.log(figures(result))
            if bundle is not None and name in _KEEP:
                _KEEP[name](accelerator.get_tracker(name, unwrap=True), bundle)
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()


def _keep_in_mlflow(_: Any, bundle: Path) -> None:
    """As a model of the run that is active, with the flavour python_function: MLflow loads, registers and serves it."""
    import mlflow  # type: ignore[import-not-found]

    mlflow.pyfunc.log_model(
        name=_slug(bundle.name), python_model=str(resource("export") / "mlflow" / "model.py"),
        artifacts={"bundle": str(bundle)}, pip_requirements=[f"edgekd[runtime]=={edgekd.__version__}"],
    )  # fmt: skip


def _keep_in_wandb(run: Any, bundle: Path) -> None:
    import wandb  # type: ignore[import-not-found]

    artefact = wandb.Artifact(_slug(bundle.name), type="model")
    artefact.add_dir(str(bundle))
    run.log_artifact(artefact)


# How a tracker that keeps files keeps a bundle, given what its library calls a run.
_KEEP: dict[str, Callable[[Any, Path], None]] = {"mlflow": _keep_in_mlflow, "wandb": _keep_in_wandb}


def parameters(result: Result) -> dict[str, Value]:
    """The resolved request with dotted names, what was left unset left out; and what tells one run from another."""
    return dict(_flat("", result.request)) | {
        "bundle": result.name,
        "model_sha256": result.files.get(result.model_file, ""),
        "task": result.data.task,
        "metric": result.data.metric,
        "outcome": result.outcome,
    }


def curve(result: Result) -> Iterator[tuple[int, dict[str, float]]]:
    """Optimiser step, and loss and validation score there; a stage goes on counting where the one before it ended."""
    before = step = 0
    for stage in result.training:
        name = f"training/{_slug(stage.name)}"
        for point in stage.points:
            step = before + point.step
            values = {"epoch": point.epoch, "loss": point.loss, "validation": point.score}
            yield step, {f"{name}/{what}": value for what, value in values.items() if value is not None}
        before = step


def figures(result: Result) -> dict[str, float]:
    """The verdict in numbers: latencies in ms, every row's score on test, what each criterion found, the exit code."""
    found: dict[str, float] = {"verdict/exit_code": int(result.exit_code)}
    for judge, timing in result.latency.timings.items():
        for percentile in timing.percentiles:
            found[f"latency/{judge}/p{percentile.q:g}_ms"] = percentile.value_ms
    for row in result.quality:
        found[f"test/{_slug(row.name)}"] = row.score
    for criterion in result.criteria:
        if criterion.value is not None:
            found[f"verdict/{_slug(criterion.name)}"] = criterion.value
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, Value]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif value is not None:
        yield name, value


def _slug(text: str) -> str:
    """A name that every tracker takes: MLflow refuses commas, plus signs and colons."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
