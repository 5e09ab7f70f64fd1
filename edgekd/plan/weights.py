"""A student's first weights: cut out of the teacher by importance, out of a larger student, or out of a checkpoint."""

from __future__ import annotations

from edgekd.distill.student import Start
from edgekd.errors import UsageError
from edgekd.inputs.gather import Inputs, no_student
from edgekd.models.checkpoint import checkpoint_shape, checkpoint_weights
from edgekd.models.initialize import (
    Weights,
    project_width,
    random_initial,
    scaled_output,
    slice_again,
    slice_weights,
)
from edgekd.models.student import StudentModel, numpy_weights
from edgekd.plan.importance import Measured, importance_stage, read_importance
from edgekd.records.plan import Candidate
from edgekd.session import Session


def importance_of(session: Session, inputs: Inputs) -> Measured:
    """Importance of the teacher's parts, measured once.

    Raises:
        UsageError: The teacher is of a family that no student can be cut out of.
    """
    hosted = inputs.teacher.hosted
    if hosted is None:
        raise UsageError(no_student(inputs.teacher))
    return read_importance(
        importance_stage(
            session.store, session.engine, hosted, inputs.teacher_id, inputs.encodings, inputs.rows, inputs.task.output
        )
    )


def first_weights(session: Session, inputs: Inputs, candidate: Candidate) -> Start:
    """First weights of a student, as `distill.init` says.

    Raises:
        UsageError: The plan is not of a student, or was made for another `distill.init`.
    """
    distill, labels = inputs.profile.distill, inputs.task.labels
    if candidate.shape is None or candidate.kind == "teacher":
        raise UsageError("the plan's choice is the unchanged teacher: there is no student to start")
    if inputs.checkpoint is not None:
        shape = checkpoint_shape(inputs.checkpoint, inputs.task.head, *inputs.task.sizes)
        if candidate.shape != shape:
            raise UsageError(f"the plan's student is not {inputs.checkpoint.folder} of distill.init: plan again")
        return Start(shape, _with_scale(inputs, checkpoint_weights(inputs.checkpoint, shape, distill.seed)), labels)
    if candidate.choice is None:
        raise UsageError(f"the plan's student is a checkpoint, but distill.init is {distill.init.name}: plan again")
    if distill.init.name == "random":
        return Start(candidate.shape, _with_scale(inputs, random_initial(candidate.shape, distill.seed)), labels)
    measured, hosted = importance_of(session, inputs), inputs.teacher.hosted
    assert hosted is not None
    shape, weights = slice_weights(*hosted, measured.importance, candidate.choice)
    if candidate.shape.hidden < shape.hidden:
        shape, weights, _ = project_width(shape, weights, measured.states, candidate.shape.hidden)
    return Start(shape, weights, labels)


def _with_scale(inputs: Inputs, weights: Weights) -> Weights:
    """Weights with a new head; that of a regression begins at the teacher's mean and spread, far off as they may be."""
    return scaled_output(weights, inputs.rows) if inputs.task.output == "value" else weights


def weights_again(
    session: Session, inputs: Inputs, student: StudentModel, old: Candidate, new: Candidate
) -> Start | None:
    """First weights of a smaller student, cut out of one that was trained already; None where it is not inside."""
    if old.choice is None or new.choice is None or old.shape is None or new.shape is None:
        return None
    if old.shape.hidden != new.shape.hidden:
        return None
    importance = importance_of(session, inputs).importance
    shape = student.config.encoder_shape
    cut = slice_again(shape, numpy_weights(student), importance, old.choice, new.choice)
    return None if cut is None else Start(*cut, inputs.task.labels)
