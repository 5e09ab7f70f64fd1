"""A teacher that can only be asked: its outputs make a local teacher, which then teaches as any other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.data.outputs import Outputs, data_of, join, lesson, read_outputs
from edgekd.data.read import read_ids
from edgekd.data.split import TaskData
from edgekd.distill.scoring import Judged
from edgekd.errors import UsageError
from edgekd.inputs.gather import Inputs
from edgekd.pipeline import collect
from edgekd.records.labels import Compared, OutputsSummary
from edgekd.records.result import QualityRow
from edgekd.session import Session, read, teach_from
from edgekd.settings.columns import Columns
from edgekd.settings.profile import Profile
from edgekd.settings.task import TaskSpec
from edgekd.store import Artefact


def read_with_outputs(
    session: Session, file: str, source: str | None, task: TaskSpec | None, columns: Columns, hub_config: str | None
) -> tuple[TaskData, Outputs]:
    """Read a teacher's outputs, and the data they are about; without data, their own texts are the data.

    Raises:
        DataError: Outputs or data are wrong.
        UsageError: Outputs are not read for such a task.
    """
    progress = session.engine.progress
    if source is None:
        if task is not None and task.name != "text-classification":
            raise UsageError(f"--task {task.name}: --teacher-outputs are read for text classification alone")
        outputs = read_outputs(file)
        data = data_of(outputs)
        progress.say(f"data: {len(outputs.texts)} texts of {file}, {len(outputs.labels)} labels")
    else:
        data = read(progress, source, task, columns, hub_config)
        outputs = read_outputs(file, data.labels, lambda: read_ids(source, columns, hub_config))
    joined = join(data, outputs)
    for note in joined.notes[len(data.notes) if source is not None else 0 :]:
        progress.say(f"data: {note}")
    return joined, outputs


def teach_from_outputs(session: Session, encoder: str, data: TaskData, outputs: Outputs, profile: Profile) -> Artefact:
    """Fine-tune a local teacher from an encoder folder and a teacher's outputs.

    Raises:
        DataError: No text to learn from, or to judge by, has an output.
        UsageError: There is no such folder.
    """
    taught, targets = lesson(data, outputs)
    return teach_from(session, encoder, taught, profile, targets)


def outputs_row(inputs: Inputs) -> list[QualityRow]:
    """The outputs' line of the quality table, on the test texts that they cover; none without."""
    covered = _covered(inputs)
    if inputs.outputs is None or not len(covered):
        return []
    test, task = inputs.test, inputs.task
    gold = [test.gold[i] for i in covered]
    judged = Judged(test.split.take(covered), test.encodings.take(covered), gold, test.agreement)
    # The task's labels are the outputs' in the order of the local teacher's logits: the same, as it was made of them.
    rows = inputs.outputs.probabilities[inputs.outputs.places(judged.split.texts)]
    row, _ = collect.quality_row("teacher outputs, as given", task, judged, rows, inputs.test_rows[covered])
    return [row]


def compare(inputs: Inputs, file: str, shipped: np.ndarray) -> OutputsSummary:
    """Outputs, local teacher and shipped model against each other and the gold labels.

    Args:
        shipped: Logits of the shipped model on test, (texts, labels).
    """
    outputs, covered = inputs.outputs, _covered(inputs)
    assert outputs is not None
    split = inputs.test.split.take(covered)
    said = {
        "teacher outputs, as given": outputs.answers(outputs.places(split.texts)),
        "local teacher": _answers(inputs, inputs.test_rows[covered]),
        "shipped model": _answers(inputs, shipped[covered]),
    }
    rows = [
        Compared(
            name=name,
            gold=None if split.labels is None else _equal(answers, split.labels),
            outputs=_equal(answers, said["teacher outputs, as given"]),
            teacher=_equal(answers, said["local teacher"]),
        )
        for name, answers in said.items()
        if len(covered)
    ]
    return OutputsSummary(
        file=file, texts=len(outputs.texts), covered=len(covered), test=len(inputs.test.split), compared=tuple(rows)
    )


def _covered(inputs: Inputs) -> NDArray[np.int64]:
    """Which test texts have an output."""
    if inputs.outputs is None:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(inputs.outputs.places(inputs.test.split.texts) >= 0)


def _answers(inputs: Inputs, rows: np.ndarray) -> list[str]:
    return [inputs.task.labels[i] for i in rows.argmax(axis=-1)]


def _equal(mine: Sequence[str], theirs: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(mine, theirs, strict=True)]))
