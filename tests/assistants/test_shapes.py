"""A chain of the user's own against the teacher alone: three layers of four heads and 64 neurons."""

from dataclasses import replace

import pytest

from edgekd.assistants.shapes import check_shapes
from edgekd.errors import UsageError
from edgekd.pipeline import family
from edgekd.settings.profile import override

WHOLE = {"layers": [0, 1, 2], "heads": [4, 4, 4], "ffn": [64, 64, 64]}
HALF = {"layers": [0, 2], "heads": [2, 2], "ffn": [32, 32]}


def changed(profile, shapes):
    return override(profile, {"distill.assistants": {"name": "fixed", "shapes": shapes}})


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ([HALF | {"heads": [2, 5]}], "shapes.0: keeps 5 heads and 32 neurons of layer 2, but the teacher has 4 and 64"),
        ([HALF | {"layers": [0, 6]}], "shapes.0: keeps layer 6, but the teacher's layers end at 2"),
        ([WHOLE], "shapes.0: is as large as the teacher"),
        ([HALF, HALF | {"heads": [3, 2]}], "shapes.0: the next cannot be cut out of it"),
        ([HALF], ""),
        ([HALF, {"layers": [2], "heads": [1], "ffn": [8]}], ""),
    ],
)
def test_what_the_teacher_alone_refuses(planner, shapes, why):
    inputs = replace(planner.inputs, profile=changed(planner.inputs.profile, shapes))
    if not why:
        check_shapes(inputs)
        return
    with pytest.raises(UsageError, match=why):
        check_shapes(inputs)


def test_a_family_is_refused_before_the_device_is_measured(shared_session, request_, monkeypatch):
    monkeypatch.setattr(family, "choose_student", lambda *given: pytest.fail("it was planned"))
    asked = request_.model_copy(update={"profile": changed(request_.profile, [WHOLE])})
    with pytest.raises(UsageError, match="is as large as the teacher"):
        family._plan_all(shared_session, [asked, asked])
