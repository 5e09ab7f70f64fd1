"""From a task's specification to the task."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from edgekd.settings.task import TaskSpec
from edgekd.tasks.base import Task


def task_class(spec: TaskSpec) -> type[Task]:
    """The class of a task: its file is named as the task, the class as the specification."""
    module = import_module(f"edgekd.tasks.{spec.name.replace('-', '_')}")
    found: type[Task] = getattr(module, f"{type(spec).__name__}Task")
    return found


def build_task(spec: TaskSpec, labels: Sequence[str]) -> Task:
    """The task of a specification, with label names in the order of the logits."""
    return task_class(spec)(spec, labels)
