"""The last steps of a plan: session options are changed only for a sure gain, and the tail is pooled."""

import numpy as np
import pytest

from edgekd.graph.spec import GraphOptions
from edgekd.latency.measure import Measurement
from edgekd.latency.timer import LoadReport, RoundSample
from edgekd.models.spec import EncoderShape, HeadShape
from edgekd.plan import finalists, make
from edgekd.plan.finalists import Bench, Proof, measure_medians, pilot, tail_of
from edgekd.plan.result import Candidate, Plan
from edgekd.profile import load
from edgekd.progress import Progress
from edgekd.targets.base import SessionSpec
from edgekd.targets.fake import FakeTargetRuntime
from edgekd.targets.spec import FakeTarget

SHAPE = EncoderShape(
    vocabulary=50, positions=32, token_types=2, embedding=16, hidden=16, head_size=8, heads=(2,), ffn=(16,),
    head=HeadShape(kind="sequence", labels=3),
)  # fmt: skip


def measurement(name, rounds, quiet=None):
    taken = tuple(RoundSample(0, tuple(map(float, r))) for r in rounds)
    flags = tuple(quiet) if quiet is not None else (True,) * len(taken)
    return Measurement(name, taken, flags, (LoadReport(0, "x", 1.0, 1.0, 1.0),))


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
    told = pilot(bench, candidate(), 1.0)
    assert told.session == bench.target.session_variants()[chosen]
    assert told.median_ms == pytest.approx(found[str(chosen)].percentile(50))


def test_a_gain_seen_in_noise_alone_is_no_gain(bench, monkeypatch):
    rng = np.random.default_rng(1)
    noisy = {str(i): measurement(str(i), np.exp(0.5 * rng.standard_normal((10, 1)))) for i in range(3)}
    monkeypatch.setattr(finalists, "compare", lambda *_, **__: noisy)
    assert pilot(bench, candidate(), 1.0).session == bench.target.session_spec()


def test_tail_is_of_samples_over_their_own_median():
    base = np.concatenate([np.ones(90), np.full(10, 1.5)])
    found = [measurement("a", [base]), measurement("b", [10 * base])]
    assert tail_of(found, 95) == pytest.approx(1.5)
    assert tail_of([measurement("c", [np.ones(20)])], 95) == 1.0


def test_disturbed_rounds_do_not_count_for_the_tail():
    rounds = [np.ones(20), np.full(20, 9.0)]
    assert tail_of([measurement("a", rounds, quiet=(True, False))], 95) == 1.0


def test_finalists_keep_their_order_and_cost(bench):
    small, large = candidate(), candidate(heads=(2, 2), ffn=(16, 16))
    medians, tail, disturbed = measure_medians(bench, [large, small], bench.target.session_spec(), 1.0)
    assert medians[0] > 1.5 * medians[1] > 0
    assert (tail, disturbed) == (pytest.approx(1.0), 0.0)


def test_a_wide_interval_leaves_more_free():
    assert Proof(9.0, 9.2).cautious_ms(0.07) == 9.0
    assert Proof(9.0, 11.0).cautious_ms(0.07) == pytest.approx(11.0 * 0.93)
    assert Proof(8.0, np.inf).cautious_ms(0.07) == pytest.approx(8.0 * 1.25 * 0.93)


FRAME = Plan(
    budget_ms=10, percentile=95, limit_ms=9.3, max_length=8, batch_size=1, overhead_ms=0.5, tail=1.2, correction=1.1,
    candidates=(), chosen=None, reason="",
)  # fmt: skip


@pytest.mark.parametrize(
    ("slower", "tail", "fit", "off"),
    [(1.3, 1.2, False, 1.3), (1.0, 1.3, False, 1.0), (0.9, 1.2, True, 9.0 / (6.9 * 1.2 * 1.1))],
)
def test_what_finalists_measure_corrects_the_next_search(bench, monkeypatch, slower, tail, fit, off):
    # The table says a median of 6.4 ms; the pilot found it 1.1 times as slow.
    model_ms = 6.4
    finalist = candidate().model_copy(update={"predicted_ms": (model_ms + 0.5) * 1.2 * 1.1})
    found = 1.1 * slower * (model_ms + 0.5) - 0.5
    monkeypatch.setattr(make, "measure_medians", lambda *_: ([found], tail, 0.0))
    monkeypatch.setattr(make, "prove", lambda *_: Proof(9.0, 9.2))
    after, measured, told = make._finals(FRAME, bench, [finalist], 1.0)
    assert measured[0].fits is fit
    assert after.tail == tail
    assert told == pytest.approx(off)


@pytest.mark.parametrize("piloted", [0.6, 1.0, 1.7])
def test_a_pilot_that_was_off_costs_neither_the_budget_nor_its_use(bench, monkeypatch, piloted):
    """Models of 0.1 to 20 ms by the table, which is right; the pilot says that it is not."""

    def frontier(plan, *_):
        room = plan.limit_ms / (plan.tail * plan.correction) - plan.overhead_ms
        best = np.floor(10 * room) / 10
        predicted = (best + plan.overhead_ms) * plan.tail * plan.correction
        return [candidate().model_copy(update={"kept": best / 20, "predicted_ms": predicted})]

    monkeypatch.setattr(make, "_frontier", frontier)
    monkeypatch.setattr(make, "_piloted", lambda plan, *_: plan.model_copy(update={"correction": piloted}))
    monkeypatch.setattr(make, "measure_medians", lambda _, found, *__: ([20 * c.kept for c in found], 1.2, 0.0))
    monkeypatch.setattr(make, "prove", lambda _, c, *__: Proof(1.2 * (20 * c.kept + 0.5), 1.25 * (20 * c.kept + 0.5)))
    profile = load("cpu")
    made = make.with_students(FRAME.model_copy(update={"correction": 1.0}), profile, bench, None, ["fp32"])
    assert 0.85 * FRAME.budget_ms <= made.choice.measured_ms <= FRAME.limit_ms
