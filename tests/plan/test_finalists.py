"""The last steps of a plan: session options are changed only for a sure gain, and the tail is pooled."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgekd.latency.interval import Estimate
from edgekd.latency.measure import Measurement
from edgekd.latency.table import LatencyTable, WidthCosts
from edgekd.latency.targets.fake import FakeTargetRuntime
from edgekd.latency.timer import LoadReport, RoundSample
from edgekd.plan import finalists, make
from edgekd.plan.finalists import Bench, cautious_ms, measure_medians, pilot
from edgekd.plan.space import SearchSpace
from edgekd.profiles import load_profile
from edgekd.progress import Progress
from edgekd.records.plan import Candidate, Plan
from edgekd.settings.export import GraphOptions
from edgekd.settings.shape import EncoderShape, HeadShape
from edgekd.settings.target import FakeTarget, SessionSpec

SHAPE = EncoderShape(
    vocabulary=50, positions=32, token_types=2, embedding=16, hidden=16, head_size=8, heads=(2,), ffn=(16,),
    head=HeadShape(kind="sequence", labels=3),
)  # fmt: skip


def measurement(name, rounds):
    taken = tuple(RoundSample(0, float(i), tuple(map(float, r))) for i, r in enumerate(rounds))
    return Measurement(name, taken, (LoadReport(0, "x", 1.0, 1.0, 1.0),))


def proof(value_ms, upper_ms):
    return Estimate(value_ms, (0.0, upper_ms), value_ms)


class Variants(FakeTargetRuntime):
    def session_variants(self):
        return (self.session_spec(), SessionSpec(arena=False), SessionSpec(graph_level="extended"))


@pytest.fixture
def bench():
    target = Variants(FakeTarget(gflops=0.001, noise=0.0))
    return Bench(target, 1, 8, 95.0, GraphOptions(), "avx2", Progress(), lambda *_: pytest.fail("not needed"))


def candidate(**changes):
    shape = SHAPE.model_copy(update=changes)
    return Candidate(
        kind="student", precision="fp32", shape=shape, choice=None, kept=1, predicted_ms=1, measured_ms=None, fits=True
    )


@pytest.mark.parametrize(
    ("factors", "chosen"),
    [
        ((1.0, 1.0, 1.0), 0),
        ((1.0, 0.99, 1.1), 0),  # 1% is not worth other options
        ((1.0, 0.9, 0.8), 2),
        ((1.0, 0.9, 1.2), 1),
    ],
)
def test_options_are_changed_for_a_sure_gain_alone(bench, monkeypatch, factors, chosen):
    rng = np.random.default_rng(0)
    load = 1 + 0.2 * rng.random(10)  # a load that comes and goes meets all variants alike
    found = {str(i): measurement(str(i), [[f * w] * 5 for w in load]) for i, f in enumerate(factors)}
    monkeypatch.setattr(finalists, "compare", lambda *_, **__: found)
    session, median_ms = pilot(bench, candidate(), 1.0)
    assert session == bench.target.session_variants()[chosen]
    assert median_ms == pytest.approx(found[str(chosen)].percentile(50, "service"), rel=0.02)


def test_a_gain_seen_in_noise_alone_is_no_gain(bench, monkeypatch):
    rng = np.random.default_rng(1)
    noisy = {str(i): measurement(str(i), np.exp(0.5 * rng.standard_normal((10, 1)))) for i in range(3)}
    monkeypatch.setattr(finalists, "compare", lambda *_, **__: noisy)
    assert pilot(bench, candidate(), 1.0)[0] == bench.target.session_spec()


def test_finalists_keep_their_order_and_cost(bench):
    small, large = candidate(), candidate(heads=(2, 2), ffn=(16, 16))
    medians = measure_medians(bench, [large, small], bench.target.session_spec(), 1.0)
    assert medians[0] > 1.5 * medians[1] > 0


def test_a_wide_interval_leaves_more_free():
    assert cautious_ms(proof(9.0, 9.2), 0.07) == 9.0
    assert cautious_ms(proof(9.0, 11.0), 0.07) == pytest.approx(11.0 * 0.93)
    assert cautious_ms(proof(8.0, np.inf), 0.07) == pytest.approx(8.0 * 1.25 * 0.93)


FRAME = Plan(
    budget_ms=10, percentile=95, limit_ms=9.3, max_length=8, batch_size=1, overhead_ms=0.5, tail=1.2, correction=1.1,
    candidates=(), chosen=None, reason="",
)  # fmt: skip


@pytest.mark.parametrize(
    ("slower", "tail", "expected", "level"),
    [
        (1.2, 1.2, None, 1.2),  # nothing is known of it but this minute
        (1.2, 1.2, 1.0, np.sqrt(1.2)),  # a slow minute, or a table that is off: each counts half
        (1.5, 1.2, 1.0, 1.5),  # no minute is so slow: the table is off
        (1.0, 2.4, 1.0, np.sqrt(2.0)),  # a tail of a few seconds is half chance
        (1.5, 2.4, 1.0, 1.5 * np.sqrt(2.0)),
    ],
)
def test_what_the_pilot_takes_whole_sets_correction_and_tail(bench, monkeypatch, slower, tail, expected, level):
    """The table says a median of 6.4 ms and a tail of 1.2; the pilot's calls are longer by one factor."""
    frame, call = FRAME.model_copy(update={"correction": 1.0}), 6.4 + 0.5
    near = candidate().model_copy(update={"predicted_ms": call * 1.2})
    session = SessionSpec(arena=False)
    monkeypatch.setattr(make, "pilot", lambda *_: (session, slower * call - 0.5))
    monkeypatch.setattr(make, "prove", lambda *_: proof(*[slower * tail * call] * 2))
    after, known = make._piloted(frame, bench, near, 1.0, expected and expected * near.predicted_ms)
    assert after.session == session
    assert after.correction == pytest.approx(slower)
    assert after.correction * after.tail == pytest.approx(level * 1.2)
    assert known.measured_ms == pytest.approx(level * 1.2 * call)


def test_what_a_bundle_takes_more_than_its_graph_is_learned_of_the_teacher():
    costs = WidthCosts(
        width=16, precision="int8", fixed=0.1, heads=(0, 2), attention=(0.0, 1.0), neurons=(0, 16), ffn=(0.0, 1.0),
        graphs=9, residual=0.0,
    )  # fmt: skip
    table = LatencyTable(batch_size=1, length=8, costs=(costs,))
    space = SearchSpace(load_profile("cpu"), ["int8"], SHAPE, None, {16: 1.0}, table)
    teacher = candidate().model_copy(update={"kind": "teacher", "precision": "int8", "predicted_ms": None})
    teacher = teacher.model_copy(update={"measured_ms": 1.3 * (2.1 + 0.5) * FRAME.tail})
    plan = FRAME.model_copy(update={"candidates": (teacher,), "correction": 1.0})
    assert make._teacher_gap(plan, space) == pytest.approx(1.3)
    assert make._teacher_gap(FRAME, space) == 1.0


@pytest.mark.parametrize(("slower", "fit"), [(1.3, False), (0.9, True)])
def test_finalists_are_held_against_the_limit_beside_the_pilot(bench, monkeypatch, slower, fit):
    """The pilot takes 9 ms whole; the machine is twice as slow when the finalists are measured beside it."""
    known = candidate().model_copy(update={"measured_ms": 9.0})
    finalist = candidate(ffn=(8,)).model_copy(update={"predicted_ms": 9.0})
    monkeypatch.setattr(make, "measure_medians", lambda *_: [2 * 7.0 - 0.5, 2 * slower * 7.0 - 0.5])
    (measured,), off = make._beside(FRAME, bench, [finalist], known)
    assert measured.measured_ms == pytest.approx(slower * 9.0)
    assert measured.fits is fit
    assert off == pytest.approx(slower)


@dataclass(frozen=True)
class Space(SearchSpace):
    """Models of 0.1 to 20 ms, a whole call 1.2 times as long, and a table that is wrong by a factor of its own."""

    wrong: Callable[[float], float] = lambda ms: 1.0
    rooms: list[float] = field(default_factory=list)

    def frontier(self, plan):
        self.rooms.append(plan.limit_ms / (plan.tail * plan.correction) - plan.overhead_ms)
        best = min(20.0, np.floor(10 * self.rooms[-1] / self.wrong(self.rooms[-1])) / 10)
        predicted = (best * self.wrong(best) + plan.overhead_ms) * plan.tail * plan.correction
        return [candidate().model_copy(update={"kept": best / 20, "predicted_ms": predicted})]


def space_of(monkeypatch, wrong=lambda ms: 1.0, kind=Space):
    """Measured as they are: a model's time is written into what it keeps."""
    monkeypatch.setattr(make, "pilot", lambda _, c, *__: (SessionSpec(), 20 * c.kept))
    monkeypatch.setattr(make, "measure_medians", lambda _, found, *__: [20 * c.kept for c in found])
    monkeypatch.setattr(make, "prove", lambda _, c, *__: proof(*[1.2 * (20 * c.kept + 0.5)] * 2))
    table = LatencyTable(batch_size=1, length=8, costs=())
    return kind(load_profile("cpu"), ["fp32"], SHAPE, None, {}, table, wrong)


@pytest.mark.parametrize("wrong", [0.6, 1.0, 1.7])
def test_a_table_that_is_off_costs_neither_the_budget_nor_its_use(bench, monkeypatch, wrong):
    space = space_of(monkeypatch, lambda _: wrong)
    made = make.with_students(FRAME.model_copy(update={"correction": 1.0}), bench, space)
    assert 0.85 * FRAME.budget_ms <= made.choice.measured_ms <= FRAME.limit_ms


def test_finalists_that_all_miss_are_followed_by_smaller_ones(bench, monkeypatch):
    """The table is right where the pilot is, and promises too much of what is larger than 3 ms."""
    space = space_of(monkeypatch, lambda ms: 0.7 if ms > 3 else 1.0)
    frame = FRAME.model_copy(update={"correction": 1.0, "tail": 3.0})
    made = make.with_students(frame, bench, space)
    assert space.rooms[0] < 3 < space.rooms[1]
    assert space.rooms[-1] < space.rooms[1]
    assert made.choice.measured_ms <= FRAME.limit_ms


class Nothing(Space):
    """A space with nothing in it but its smallest."""

    def finalists(self, plan):
        return [], []

    def floor(self, plan):
        return candidate().model_copy(update={"kept": 0.1, "predicted_ms": 20.0, "fits": False, "note": "predicted"})


def nothing_of(monkeypatch, whole_ms):
    """`Nothing`, whose smallest takes this long when it is measured whole."""
    space = space_of(monkeypatch, kind=Nothing)
    monkeypatch.setattr(make, "prove", lambda *_: Estimate(whole_ms, (0.98 * whole_ms, 1.02 * whole_ms), whole_ms))
    return space


@pytest.mark.parametrize("whole_ms", [9.0, 9.7, 10.1])
def test_the_smallest_of_the_space_may_use_the_headroom_and_the_doubt(bench, monkeypatch, whole_ms):
    """Nothing smaller is left to go to: the verdict on the file itself decides."""
    space = nothing_of(monkeypatch, whole_ms)
    made = make.with_students(FRAME.model_copy(update={"correction": 1.0}), bench, space)
    assert made.choice.measured_ms == whole_ms


def test_the_smallest_of_the_space_is_measured_before_a_plan_gives_up(bench, monkeypatch):
    """The table says that nothing fits; the table may be wrong."""
    space = nothing_of(monkeypatch, 11.0)
    made = make.with_students(FRAME.model_copy(update={"correction": 1.0}), bench, space)
    assert made.choice is None
    assert "the smallest student, one layer" in made.reason
    assert "was measured and takes 11.00 ms" in made.reason


def test_a_budget_below_the_tokeniser_is_named_as_such(bench, monkeypatch):
    space = nothing_of(monkeypatch, 11.0)
    frame = FRAME.model_copy(update={"budget_ms": 0.5, "limit_ms": 0.46})
    made = make.with_students(frame, bench, space)
    assert "tokenising and answering alone take 0.66 ms" in made.reason
    assert "no model can meet it" in made.reason


def test_a_choice_far_below_the_limit_is_not_the_end_where_better_ones_just_missed(bench, monkeypatch):
    """What fills the room is 3% over it; beside it stands one that uses half."""

    class Gapped(Space):
        def frontier(self, plan):
            room = plan.limit_ms / (plan.tail * plan.correction) - plan.overhead_ms
            scale = plan.tail * plan.correction
            return [
                candidate().model_copy(update={"kept": ms / 20, "predicted_ms": (ms / 1.03 + plan.overhead_ms) * scale})
                for ms in (1.03 * room, 0.5 * room)
            ]

    space = space_of(monkeypatch, kind=Gapped)
    made = make.with_students(FRAME.model_copy(update={"correction": 1.0}), bench, space)
    assert 0.9 * FRAME.limit_ms <= made.choice.measured_ms <= FRAME.limit_ms
