"""A training run: its looks at validation, and what came of it."""

from __future__ import annotations

from typing import Literal

from edgekd.records.base import Record


class Point(Record):
    """One look at validation.

    Attributes:
        epoch: Passes over the texts.
        loss: Mean loss since the look before.
        score: What chooses the best weights: the metric on validation, or minus a held-out loss.
        seconds: Since the run began.
        step: Optimiser steps since the run began.
    """

    epoch: float
    loss: float | None = None
    score: float | None = None
    seconds: float = 0.0
    step: int = 0


class Curve(Record):
    """The looks of one run, by name; scores are of the metric, or left out."""

    name: str
    points: tuple[Point, ...]


class TrainingRun(Record):
    """What a stage of a teacher's or a student's training gave.

    Attributes:
        loss: What was minimised.
        judged_by: What the best weights were chosen by.
        untrained: Score on validation before; None for a teacher.
        validation: Score on validation after.
        points: The looks.
        steps: Optimiser steps.
        planned_steps: Those that were planned, where it ended early.
        seconds: Training time, validation included.
        truncated: Training texts that were cut.
    """

    loss: str = "labels"
    judged_by: Literal["metric", "held-out loss"] = "metric"
    untrained: float | None = None
    validation: float
    points: tuple[Point, ...]
    steps: int
    planned_steps: int | None = None
    seconds: float
    truncated: int = 0
