"""A compress request: what `edgekd.yaml` in a bundle holds, and all that is needed to make the bundle again."""

from __future__ import annotations

import re
from pathlib import PurePath

from pydantic import model_validator

from edgekd.errors import UsageError
from edgekd.settings.base import Spec
from edgekd.settings.columns import Columns
from edgekd.settings.profile import Profile
from edgekd.settings.task import TaskSpec

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name of the hub."""
    return _HUB_ID.fullmatch(name) is not None


def is_hub_data(name: str) -> bool:
    """Whether a name may be that of a data set on the hub; one with a suffix is a file that is not there."""
    return is_hub_id(name) and not PurePath(name).suffix


def is_demo(teacher: str | None, data: str | None, encoder: str | None, teacher_outputs: str | None) -> bool:
    """Whether nothing of one's own is named, which asks for the demo.

    Raises:
        UsageError: Half of what belongs together is named, or two things that exclude each other.
    """
    if (encoder is None) != (teacher_outputs is None):
        missing, there = ("--teacher-outputs", "--encoder") if encoder else ("--encoder", "--teacher-outputs")
        raise UsageError(f"{there} without {missing}: a teacher is made of both (of gold labels: `edgekd teach`)")
    if encoder is not None and teacher is not None:
        raise UsageError("--teacher goes without --encoder and --teacher-outputs: these make a teacher")
    if encoder is None and (teacher is None) != (data is None):
        missing = "--teacher" if teacher is None else "--data"
        raise UsageError(f"{missing} is missing: give both --teacher and --data, or neither for the demo")
    return teacher is None and data is None and encoder is None


class Request(Spec):
    """What the user asked for, resolved.

    Attributes:
        demo: Run on the embedded demo instead of a teacher and data.
        teacher: Folder or hub id.
        data: Folder, file or hub id.
        data_config: Configuration of a hub dataset.
        task: The task; None reads it off the data.
        columns: Columns that have unusual names.
        profile: Everything else.
        plan: A plan that pins the student.
        trust_remote_code: Run model code that comes with the teacher.
        bundle_texts: Keep some of the user's own texts in the bundle, for `edgekd validate`.
        encoder: Folder or hub id of an encoder that a teacher is made from, instead of `teacher`.
        teacher_outputs: What that teacher learns: a file of another teacher's outputs. Then data may be left out.
    """

    demo: bool = False
    teacher: str | None = None
    data: str | None = None
    data_config: str | None = None
    task: TaskSpec | None = None
    columns: Columns = Columns()
    profile: Profile
    plan: str | None = None
    trust_remote_code: bool = False
    bundle_texts: bool = False
    encoder: str | None = None
    teacher_outputs: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Request:
        if self.demo != is_demo(self.teacher, self.data, self.encoder, self.teacher_outputs):
            raise UsageError("--demo goes without --teacher and --data, which it brings, and only without them")
        return self
