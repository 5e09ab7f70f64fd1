"""What a plan rests on decides whether it is made again."""

from dataclasses import replace

import pytest

from edgekd.latency import kept
from edgekd.latency.kept import Watch
from edgekd.pipeline.compress import gather, planner_of
from edgekd.plan import stage
from edgekd.plan.stage import Device, Planner
from edgekd.request import Request
from edgekd.session import Session
from edgekd.store import Store
from edgekd.targets.build import build_target
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


def disturb_tables(monkeypatch, *shares):
    """Tables that are disturbed so much, one after the other; what is left of these shares."""
    measure, left = stage.measure_table, list(shares)

    def table(*args, **kwargs):
        return measure(*args, **kwargs).model_copy(update={"disturbed": left.pop(0)})

    monkeypatch.setattr(stage, "measure_table", table)
    return left


def test_a_plan_on_a_quiet_machine_is_kept(planner, monkeypatch):
    assert planner.make().disturbed == 0.0
    assert not any("warning" in line for line in planner.progress.lines)
    monkeypatch.setattr(Planner, "_make", lambda *given: pytest.fail("planned again"))
    monkeypatch.setattr(Watch, "quiet", lambda watch: pytest.fail("looked"))
    assert later(planner).make().disturbed == 0.0


@pytest.mark.parametrize("name", ["measure_teacher", "measure_table"])
def test_a_plan_is_as_disturbed_as_the_worst_it_rests_on(planner, monkeypatch, name):
    measure = getattr(stage, name)

    def disturbed(*args, **kwargs):
        found = measure(*args, **kwargs)
        if name == "measure_table":
            return found.model_copy(update={"disturbed": 0.5})
        return replace(found, disturbed=0.5)

    monkeypatch.setattr(stage, name, disturbed)
    assert planner.make().disturbed == 0.5
    assert "warning: other load spoiled 50% of the measurement of what the plan rests on" in planner.progress.lines[-1]


def test_a_later_run_has_the_same_plan_until_the_machine_is_quieter(planner, monkeypatch):
    """A run that was killed goes on with its student, on a busy machine too."""
    shares = disturb_tables(monkeypatch, 0.5, 0.1)
    monkeypatch.setattr(Watch, "quiet", lambda watch: quiet)
    quiet = False
    first = planner.make()
    assert first.disturbed == 0.5
    again = later(planner)
    assert again.make() == first
    assert again.make(correction=1.5).disturbed == 0.5  # the table is the old one
    quiet = True
    again = later(planner)
    assert again.make().disturbed == 0.1
    assert again.make(correction=1.5).disturbed == 0.1
    assert shares == []


def test_a_run_that_began_on_an_old_plan_stays_with_the_old_table(planner, monkeypatch):
    """The machine becomes quieter while it trains: a correction of the old figures must not meet new ones."""
    lacks = [0.9, 0.0]
    disturb_tables(monkeypatch, 0.5)
    planner.make()
    monkeypatch.setattr(kept, "expected_lack", lambda target: lacks.pop(0))
    again = later(planner)
    assert again.make().disturbed == 0.5
    assert again.make(correction=1.5).disturbed == 0.5
    assert lacks == [0.0]


def test_a_later_run_tries_again_where_a_disturbed_plan_found_nothing(planner, monkeypatch):
    def nothing(self, correction, without):
        plan = make(self, correction, without)
        return plan.model_copy(update={"chosen": None, "disturbed": 0.5}) if found.pop(0) else plan

    make, found = Planner._make, [True, False]
    monkeypatch.setattr(Planner, "_make", nothing)
    monkeypatch.setattr(Watch, "quiet", lambda watch: False)
    assert planner.make().choice is None
    assert later(planner).make().choice is not None
    assert later(planner).make().choice is not None
    assert found == []
