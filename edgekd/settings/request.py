"""A compress request: what `edgekd.yaml` in a bundle holds, and all that is needed to make the bundle again."""

from __future__ import annotations

import re

from edgekd.settings.base import Spec
from edgekd.settings.columns import Columns
from edgekd.settings.profile import Profile
from edgekd.settings.task import TaskSpec

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name of the hub."""
    return _HUB_ID.fullmatch(name) is not None


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
        encoder: Folder of an encoder that a teacher is made from, instead of `teacher`.
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
