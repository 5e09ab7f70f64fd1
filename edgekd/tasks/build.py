"""From a task's name to the task."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.settings.task import TaskSpec
from edgekd.tasks.base import Task


def build_task(spec: TaskSpec, labels: Sequence[str]) -> Task:
    """The task of a specification, importing only its own file.

    Args:
        spec: The task by name.
        labels: Label names in the order of the logits.
    """
    if spec.name == "text-classification":
        from edgekd.tasks.text_classification import TextClassificationTask

        return TextClassificationTask(spec, labels)
    if spec.name == "multi-label-classification":
        from edgekd.tasks.multi_label import MultiLabelTask

        return MultiLabelTask(spec, labels)
    if spec.name == "text-regression":
        from edgekd.tasks.text_regression import TextRegressionTask

        return TextRegressionTask(spec, labels)
    if spec.name == "joint-intent-slots":
        from edgekd.tasks.joint import JointTask

        return JointTask(spec, labels)
    from edgekd.tasks.token_classification import TokenClassificationTask

    return TokenClassificationTask(spec, labels)
