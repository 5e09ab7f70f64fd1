"""From what a request names to what all stages share: the teacher, the data, or what makes them."""

from __future__ import annotations

from dataclasses import replace

from edgekd.assistants.shapes import check_shapes
from edgekd.data.split import TaskData
from edgekd.inputs.gather import Inputs, prepare
from edgekd.models.teacher import load_teacher
from edgekd.pipeline.blackbox import read_with_outputs, teach_from_outputs
from edgekd.pipeline.demo import demo_sources
from edgekd.session import Session, read
from edgekd.settings.request import Request


def gather(session: Session, request: Request) -> Inputs:
    """Read teacher and data; the demo makes its own (see `kept_request`), a teacher's outputs make a local one."""
    profile = request.profile
    data: TaskData
    if request.demo:
        teacher_folder, data = demo_sources(session, profile)
        teacher = load_teacher(teacher_folder)
    elif request.teacher_outputs is not None:
        return _from_outputs(session, request, request.teacher_outputs)
    else:
        assert request.teacher is not None
        assert request.data is not None
        teacher = load_teacher(request.teacher, trust_remote_code=request.trust_remote_code)
        data = read(session.engine.progress, request.data, request.task, request.columns, request.data_config)
    inputs = prepare(session.store, session.engine, profile, teacher, data, trust_remote_code=request.trust_remote_code)
    check_shapes(inputs)
    return inputs


def _from_outputs(session: Session, request: Request, file: str) -> Inputs:
    """The inputs with a local teacher, made of the outputs in a file."""
    assert request.encoder is not None
    data, outputs = read_with_outputs(session, file, request.data, request.task, request.columns, request.data_config)
    taught = teach_from_outputs(session, request.encoder, data, outputs, request.profile)
    inputs = prepare(session.store, session.engine, request.profile, load_teacher(taught.path), data)
    check_shapes(inputs)
    return replace(inputs, outputs=outputs)
