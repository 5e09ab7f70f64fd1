"""What a plan rests on decides whether it is made again."""

from dataclasses import replace

import pytest

from edgekd.latency.targets.build import build_target
from edgekd.pipeline.sources import gather
from edgekd.plan import stage
from edgekd.plan.device import Device
from edgekd.plan.planner import planner_of
from edgekd.plan.stage import make_plan
from edgekd.session import Session
from edgekd.settings.request import Request
from edgekd.store import Store
from tests.conftest import Told


@pytest.fixture
def planner(tiny_teacher, intent_data, fast_profile, shared_session, tmp_path):
    session = Session(Store(tmp_path / "store"), replace(shared_session.engine, progress=Told()))
    inputs = gather(session, Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile))
    return planner_of(session, inputs, Device.of(build_target(fast_profile.target), session.store))


def later(planner):
    """The planner of the next run."""
    device = Device.of(planner.device.target, planner.session.store)
    return planner_of(planner.session, planner.inputs, device)


def test_a_plan_is_kept_for_a_run_that_was_killed(planner, monkeypatch):
    first = make_plan(planner)
    monkeypatch.setattr(stage, "_make", lambda *given: pytest.fail("planned again"))
    assert make_plan(later(planner)) == first


def test_a_corrected_plan_is_another(planner):
    assert make_plan(planner, correction=1.5).correction != make_plan(planner).correction


def test_a_later_run_tries_again_where_nothing_was_found(planner, monkeypatch):
    """The machine may have been slow: no choice is no result."""

    def nothing(planner, correction, without):
        plan = make(planner, correction, without)
        return plan.model_copy(update={"chosen": None}) if found.pop(0) else plan

    make, found = stage._make, [True, False]
    monkeypatch.setattr(stage, "_make", nothing)
    assert make_plan(planner).choice is None
    assert make_plan(later(planner)).choice is not None
    assert make_plan(later(planner)).choice is not None
    assert found == []
