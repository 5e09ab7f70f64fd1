from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from edgekd.errors import UsageError
from edgekd.latency.interval import estimate
from edgekd.latency.judge import LOOKS_SECONDS, judge, judge_budget
from edgekd.latency.measure import Measurement, compare, measure_for
from edgekd.latency.timer import GraphJob, LoadReport, RoundSample

from .scripted import ScriptedTarget, looks

JOB = GraphJob("student", Path("student.onnx"))
P95 = math.exp(0.2 * stats.norm.ppf(0.95))


def verdict_on(budget, percentile=95, clock="service", **scripted):
    return judge_budget(JOB, ScriptedTarget(**scripted), budget, percentile, clock)


def test_clear_budgets_are_told_at_the_first_look():
    met, missed = verdict_on(P95 * 1.3), verdict_on(P95 * 0.7)
    assert (met.outcome, missed.outcome) == ("met", "missed")
    assert met.estimate.interval[1] <= met.budget_ms
    assert "p95 of service time is at most" in met.reason
    assert "p95 of service time is at least" in missed.reason
    for verdict in (met, missed):
        spent = verdict.measurement.rounds[-1].at
        assert LOOKS_SECONDS[0] <= spent < LOOKS_SECONDS[0] + 5


def test_what_is_open_is_measured_longer_and_says_what_to_do():
    on_it = estimate(measure_for(JOB, ScriptedTarget(), LOOKS_SECONDS[-1]).rounds, 95, "service").value_ms
    verdict = verdict_on(on_it)
    assert verdict.outcome == "inconclusive"
    assert verdict.measurement.rounds[-1].at >= LOOKS_SECONDS[-1]
    assert verdict.reason.endswith("lies inside: run again, or ask for another budget")


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_a_tenth_off_the_budget_is_told_and_never_wrongly(rho):
    above = [verdict_on(P95 / 1.1, rho=rho, seed=i).outcome for i in range(20)]
    below = [verdict_on(P95 * 1.1, rho=rho, seed=i).outcome for i in range(20)]
    assert "met" not in above
    assert "missed" not in below
    assert min(above.count("missed"), below.count("met")) >= 18


def test_neighbours_that_only_make_it_wait_cost_no_service_time():
    """Every other round waits as long as it computes: the response misses, the service does not."""
    waits = {"waits": lambda turn: float(turn % 2)}
    service, response = verdict_on(P95 * 1.2, **waits), verdict_on(P95 * 1.2, clock="response", **waits)
    assert (service.outcome, response.outcome) == ("met", "missed")
    assert service.measurement.waited_share == pytest.approx(1 / 3, abs=0.02)


def test_a_slow_hour_is_judged_at_the_usual_speed():
    """Twice as slow as ever before: the calls miss the budget, the machine as it usually is would not."""
    rng = np.random.default_rng(0)
    usual, states = looks(np.exp(0.05 * rng.standard_normal(180))), 2.0 * np.exp(0.1 * rng.standard_normal(200))
    verdict = verdict_on(P95 * 1.5, usual=usual, state=lambda turn: states[turn])
    assert verdict.estimate.slowdown == pytest.approx(2.0, abs=0.2)
    assert verdict.estimate.observed_ms > 1.9 * P95
    assert verdict.outcome == "met"
    assert "at the machine's usual speed (it was" in verdict.reason


def test_a_miss_that_the_slow_machine_may_explain_is_open_and_says_so():
    rng = np.random.default_rng(0)
    usual, states = looks(np.exp(0.02 * rng.standard_normal(200))), 1.6 * np.exp(0.1 * rng.standard_normal(200))
    taken = measure_for(JOB, ScriptedTarget(state=lambda turn: states[turn]), 60.0)
    budget = estimate(taken.rounds, 95, "service", usual).value_ms
    verdict = judge(taken, budget, 95, "service", usual)
    assert verdict.outcome == "inconclusive"
    assert "times slower than usual" in verdict.reason
    assert "--clock response" in verdict.reason
    assert judge(taken, budget, 95, "response", usual).outcome == "missed"


def test_a_fast_minute_is_no_proof():
    """The log knows a speed half as fast, half of the time: a minute of the fast one does not prove the p95."""
    rng = np.random.default_rng(1)
    usual = looks(np.repeat([1.0, 2.0], 100) * np.exp(0.05 * rng.standard_normal(200)))
    states = np.exp(0.05 * rng.standard_normal(200))
    verdict = verdict_on(P95 * 1.2, usual=usual, sigma=0.05, state=lambda turn: states[turn])
    assert verdict.estimate.observed_ms < P95 * 1.2
    assert verdict.outcome != "met"


def test_a_fast_minute_over_its_usual_speed_is_told_as_such():
    """Seen within the budget, and over it at the usual speed: nothing lies inside the interval."""
    rng = np.random.default_rng(0)
    usual, states = looks(np.exp(0.02 * rng.standard_normal(200))), 0.6 * np.exp(0.1 * rng.standard_normal(200))
    verdict = verdict_on(0.8 * P95, usual=usual, state=lambda turn: states[turn])
    assert verdict.outcome == "inconclusive"
    assert verdict.estimate.interval[0] > 0.8 * P95 > verdict.estimate.observed_ms
    assert "times faster than usual" in verdict.reason
    assert "lies inside" not in verdict.reason


def test_one_odd_look_of_a_young_log_is_no_tail():
    rng = np.random.default_rng(0)
    speeds = np.exp(0.02 * rng.standard_normal(16))
    taken = measure_for(JOB, ScriptedTarget(), 60.0)
    plain = estimate(taken.rounds, 95, "service", looks(speeds)).value_ms
    speeds[7] = 1.5
    assert estimate(taken.rounds, 95, "service", looks(speeds)).value_ms == pytest.approx(plain, rel=0.04)


@pytest.mark.parametrize("budget", [0.0, -1.0, math.nan, math.inf])
def test_impossible_budgets(budget):
    with pytest.raises(UsageError, match="--latency-ms"):
        verdict_on(budget)


def test_a_system_without_a_threads_clock_is_judged_on_the_wall():
    verdict = verdict_on(P95 * 1.3, clock="response", cpu=False)
    assert verdict.outcome == "met"
    assert verdict.measurement.waited_share is None
    assert verdict.measurement.samples("service").size == verdict.measurement.calls


def test_processes_progress_and_closing():
    target, seen = ScriptedTarget(), []
    verdict = judge_budget(JOB, target, 10.0, 95, "service", processes=4, progress=seen.append)
    assert {r.process for r in verdict.measurement.rounds} == {0, 1, 2, 3}
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] < 1
    assert target.timers[0].closed


def test_measuring_for_some_seconds():
    found = measure_for(JOB, ScriptedTarget(), 10.0, processes=1)
    assert found.rounds[-1].at - found.rounds[0].at == 10.0


def test_samples_from_elsewhere_are_judged_alike():
    taken = verdict_on(P95 * 1.3)
    assert judge(taken.measurement, P95 * 1.3, 95, "service").outcome == taken.outcome
    assert judge(taken.measurement, P95 * 0.7, 95, "service").outcome == "missed"


def test_compare_interleaves_and_counts():
    order, target = [], ScriptedTarget()
    plain = target.timer

    def timer(jobs, processes=1):
        made = plain(jobs, processes)
        inner = made.round
        made.round = lambda job, calls: (order.append(job), inner(job, calls))[1]
        return made

    target.timer = timer
    jobs = [GraphJob(name, Path("x.onnx")) for name in "abc"]
    seen = []
    found = compare(jobs, target, processes=2, rounds=5, calls=20, progress=lambda *pair: seen.append(pair))
    assert list(found) == ["a", "b", "c"]
    assert all(m.calls == 200 for m in found.values())
    # every job once in each stretch of three
    assert all(set(order[i : i + 3]) == {"a", "b", "c"} for i in range(0, len(order), 3))
    assert len({tuple(order[i : i + 3]) for i in range(0, len(order), 3)}) > 1
    assert seen == [(i, 30) for i in range(1, 31)]


def measurement():
    rounds = (
        RoundSample(0, 1.0, (1.0, 2.0), (0.9, 1.9), ((0.1, 0.8, 0.1), (0.1, 1.8, 0.1)), 1.0, 1.0),
        RoundSample(1, 2.0, (9.0, 9.0), (3.0, 4.0), ((5.0, 3.0, 1.0), (5.0, 3.0, 1.0)), 2.0, 1.0),
    )
    loads = (LoadReport(0, "P", 10.0, 3.0, 50.0), LoadReport(1, "P", 12.0, 5.0, 60.0))
    return Measurement("job", rounds, loads)


def test_measurement_values():
    m = measurement()
    assert (m.percentile(50, "response"), m.percentile(50, "service")) == (2.0, 1.9)
    assert m.samples("service").tolist() == [0.9, 1.9, 3.0, 4.0]
    assert m.waited_share == pytest.approx(1 - 9.8 / 21)
    assert m.part_percentiles(95) == {"tokenise": 5.0, "model": 3.0, "postprocess": 1.0}
    assert (m.load_ms, m.first_call_ms, m.peak_memory_mb, m.provider, m.calls) == (11.0, 4.0, 60.0, "P", 4)


def test_measurement_through_json():
    text = json.dumps(measurement().to_json())
    assert Measurement.from_json(json.loads(text)) == measurement()
    broken = json.loads(text)
    del broken["rounds"][0]["wall_ms"]
    with pytest.raises(UsageError, match="wall_ms"):
        Measurement.from_json(broken)
