"""What other load spoiled is used, and measured again once the machine is quieter."""

import pytest

from edgekd.latency import kept
from edgekd.latency.kept import Watch, keep_measured
from edgekd.latency.measure import MAX_DISTURBED, expected_lack
from edgekd.store import Store
from edgekd.targets.build import build_target
from edgekd.targets.spec import CpuTarget, FakeTarget
from tests.conftest import Told
from tests.latency.scripted import ScriptedTarget


@pytest.fixture
def measure(tmp_path):
    """Measure with these shares disturbed, one after the other; returns which one is used, and what was said."""

    def run(watch, shares):
        progress = Told()
        made = keep_measured(
            Store(tmp_path), watch, "measure", 1, {}, lambda _: {"disturbed": shares.pop(0)},
            what="the teacher", progress=progress,
        )  # fmt: skip
        return made.result["disturbed"], progress.lines

    return run


class Scripted(Watch):
    def __init__(self, quiet):
        super().__init__(None)
        self.answer, self.asked = quiet, 0

    def quiet(self):
        self.asked += 1
        return self.answer


def test_quiet_ones_are_kept_without_a_look(measure):
    later = Scripted(quiet=True)
    assert measure(Scripted(quiet=False), [MAX_DISTURBED]) == (MAX_DISTURBED, [])
    assert measure(later, []) == (MAX_DISTURBED, [])
    assert later.asked == 0


def test_a_spoiled_one_is_used_while_the_machine_is_as_busy(measure):
    line = (
        "warning: other load spoiled 50% of the measurement of the teacher, which may be off; "
        "a run on a quieter machine measures it again"
    )
    assert measure(Scripted(quiet=False), [0.5]) == (0.5, [line])
    assert measure(Scripted(quiet=False), []) == (0.5, [line])


def test_a_spoiled_one_is_measured_again_on_a_quieter_machine(measure):
    assert measure(Scripted(quiet=False), [0.5])[0] == 0.5
    assert measure(Scripted(quiet=True), [0.1]) == (0.1, [])
    assert measure(Scripted(quiet=True), []) == (0.1, [])


def test_what_a_run_rests_on_stays_until_it_ends(measure):
    """Else a plan that was made once would be another in the middle of the run."""
    watch = Scripted(quiet=True)
    assert measure(watch, [0.5])[0] == 0.5
    assert measure(watch, [0.1])[0] == 0.5


def test_a_spoiled_one_stays_where_the_new_one_is_worse(measure):
    """The look is short: other load may have come back."""
    assert measure(Scripted(quiet=False), [0.5])[0] == 0.5
    assert measure(Scripted(quiet=True), [0.6])[0] == 0.5
    assert measure(Scripted(quiet=False), [])[0] == 0.5


def test_a_spoiled_one_stays_where_measuring_again_is_broken_off(measure):
    assert measure(Scripted(quiet=False), [0.5])[0] == 0.5
    with pytest.raises(IndexError):
        measure(Scripted(quiet=True), [])
    assert measure(Scripted(quiet=False), [])[0] == 0.5


def test_a_run_is_warned_once(measure):
    watch = Scripted(quiet=False)
    assert len(measure(watch, [0.5])[1]) == 1
    assert measure(watch, []) == (0.5, [])


def test_a_run_looks_once(monkeypatch):
    lacks = [0.5, 0.0]
    monkeypatch.setattr(kept, "expected_lack", lambda target: lacks.pop(0))
    watch = Watch("target")
    assert (watch.quiet(), watch.quiet()) == (False, False)
    assert Watch("target").quiet()


@pytest.mark.parametrize(("busy", "lack"), [(0, 0.0), (40, 0.0), (75, 0.5), (85, 0.7)])
def test_expected_lack_is_that_of_a_comparison(busy, lack):
    """It goes on for twice the rounds, so half of them may be disturbed."""
    target = ScriptedTarget(disturb=lambda turn: 1.5 if turn % 100 < busy else 1.0)
    assert expected_lack(target) == pytest.approx(lack)
    assert target.timers[0].closed


def test_fake_machine_is_quiet():
    assert expected_lack(build_target(FakeTarget())) == 0.0


def test_a_look_at_this_machine():
    pytest.importorskip("onnxruntime")
    with build_target(CpuTarget()).timer(()) as timer:
        rounds = timer.look(3)
    assert len(rounds) == 3
    assert all(r.reference_ms > 0 and r.memory_ms > 0 and r.total_ms == () for r in rounds)
