"""`--track`: log finished runs where the user keeps experiments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edgekd.cli.options import F
from edgekd.errors import UsageError
from edgekd.records.result import Result


def tracking_options(function: F) -> F:
    """--track and --track-dir."""
    folder = click.option(
        "--track-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where --track tensorboard or aim writes.  [default: runs]",
    )
    name = click.option("--track", help="Log the run: tensorboard, mlflow, wandb, or another that accelerate knows.")
    return name(folder(function))


def check_tracking(flags: dict[str, Any]) -> None:
    """Refuse a tracker that could not log the run; without --track nothing is imported.

    Raises:
        UsageError: No such tracker, or a folder that is of no use.
        UnavailableError: The tracker's library is not installed.
    """
    if flags["track"] is None:
        if flags["track_dir"] is not None:
            raise UsageError("--track-dir needs --track: name the tracker, such as tensorboard")
        return
    from edgekd.pipeline.track import check_tracker

    check_tracker(flags["track"], flags["track_dir"])


def log_runs(flags: dict[str, Any], made: Sequence[tuple[Result, Path]], console: Console) -> None:
    """Log what was made, if that was asked for; the bundles are done, so a tracker that fails costs one line."""
    if flags["track"] is None:
        return
    from edgekd.pipeline.track import track

    for result, bundle in made:
        try:
            track(result, flags["track"], flags["track_dir"], bundle)
        except Exception as error:  # any library's own
            line = " ".join(str(error).split()) or type(error).__name__
            console.print(
                f"--track {flags['track']}: {result.name} was not logged: {line}", soft_wrap=True, markup=False
            )
