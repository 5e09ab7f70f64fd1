"""A planner on the fake target."""

import pytest

from edgekd.latency.targets.build import build_target
from edgekd.pipeline.sources import gather
from edgekd.plan.device import Device
from edgekd.plan.planner import planner_of
from edgekd.settings.profile import override
from edgekd.settings.request import Request


@pytest.fixture(scope="module")
def request_(tiny_teacher, intent_data, fast_profile):
    changes = {"search.select": "accuracy", "distill.stages.0.training.epochs": 4}
    return Request(teacher=str(tiny_teacher), data=str(intent_data), profile=override(fast_profile, changes))


@pytest.fixture(scope="module")
def planner(shared_session, request_):
    device = Device.of(build_target(request_.profile.target), shared_session.store)
    return planner_of(shared_session, gather(shared_session, request_), device)
