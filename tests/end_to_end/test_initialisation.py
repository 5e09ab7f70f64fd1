"""The whole road on the fake target, with students that are not cut out of the teacher."""

import pytest

from edgekd.pipeline import compress
from edgekd.profile import override
from edgekd.request import Request


@pytest.fixture(scope="module")
def request_(tiny_teacher, intent_data, fast_profile):
    return Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile)


def with_init(request, **init):
    return request.model_copy(update={"profile": override(request.profile, {"distill.init": init})})


def test_random_student_learns_from_nothing(shared_session, request_, tmp_path):
    result = compress(shared_session, with_init(request_, name="random"), tmp_path / "b")
    untrained = result.row("student from random weights, untrained").score
    assert untrained < 0.6  # four classes
    assert result.row("student FP32").score > untrained + 0.2
    assert result.row("student after slicing, untrained") is None
