"""From a task's specification to the task."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from edgekd.settings.task import TaskSpec
from edgekd.tasks.base import Task


def build_task(spec: TaskSpec, labels: Sequence[str]) -> Task:
    """The task of a specification: its file is named as the task, its class as the specification's.

    Args:
        spec: The task by name.
        labels: Label names in the order of the logits.
    """
    module = import_module(f"edgekd.tasks.{spec.name.replace('-', '_')}")
    task: Task = getattr(module, f"{type(spec).__name__}Task")(spec, labels)
    return task
