"""What a plan rests on decides whether it is kept."""

from dataclasses import replace

import pytest

from edgekd.latency.kept import Watch
from edgekd.pipeline.compress import gather, planner_of
from edgekd.plan import stage
from edgekd.plan.stage import Device
from edgekd.progress import Progress
from edgekd.request import Request
from edgekd.session import Session
from edgekd.store import Store
from edgekd.targets.build import build_target


class Told(Progress):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def planner(tiny_teacher, intent_data, fast_profile, shared_session, tmp_path):
    session = Session(Store(tmp_path / "store"), replace(shared_session.engine, progress=Told()))
    inputs = gather(session, Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile))
    return planner_of(session, inputs, Device.of(build_target(fast_profile.target), session.store))


def test_a_plan_on_a_quiet_machine_is_kept(planner):
    assert planner.make().disturbed == 0.0
    assert not any("warning" in line for line in planner.progress.lines)


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
    measure, shares = stage.measure_table, [0.5, 0.1]

    def table(*args, **kwargs):
        return measure(*args, **kwargs).model_copy(update={"disturbed": shares.pop(0)})

    def later():
        device = Device.of(planner.device.target, planner.session.store)
        return planner_of(planner.session, planner.inputs, device)

    monkeypatch.setattr(stage, "measure_table", table)
    monkeypatch.setattr(Watch, "quiet", lambda watch: quiet)
    quiet = False
    first = planner.make()
    assert first.disturbed == 0.5
    assert later().make() == first
    assert later().make(correction=1.5).disturbed == 0.5  # the table is the old one
    quiet = True
    assert later().make().disturbed == 0.1
    assert shares == []
