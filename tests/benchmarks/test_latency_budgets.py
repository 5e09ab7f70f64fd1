"""What the benchmark of budgets counts: what `compress` would ship."""

import importlib

import pytest

from edgekd.latency.targets.build import build_target
from edgekd.pipeline.sources import gather
from edgekd.plan.device import Device
from edgekd.plan.planner import planner_of
from edgekd.plan.stage import make_plan
from edgekd.records.plan import Candidate, Plan
from edgekd.settings.request import Request
from edgekd.settings.shape import Slice
from tests.pipeline.test_attempt import judged

MISSED, NEAR, MET = ("missed", 12.0, (11.5, 12.5)), ("inconclusive", 9.5, (9.0, 10.1)), ("met", 8.0, (7.9, 8.1))


@pytest.fixture
def module():
    return importlib.import_module("latency_budgets")


def plan(ms, *, fits=True):
    """A plan of one candidate of so many milliseconds and neurons, which is chosen where it fits."""
    student = Slice(layers=(0,), heads=(1,), ffn=(ms,))
    found = Candidate(
        kind="student", precision="int8", shape=None, choice=student, kept=0.5, predicted_ms=ms, measured_ms=ms,
        fits=fits,
    )  # fmt: skip
    return Plan.model_construct(
        budget_ms=10.0, limit_ms=9.0, candidates=(found,), chosen=0 if fits else None, reason="", session=None
    )


class Planner:
    """Gives the plans it is told to, one a call; what is tried gets the verdicts in their order."""

    def __init__(self, monkeypatch, module, plans, verdicts):
        self.plans, self.corrections = iter(plans), []
        given = iter(verdicts)

        def judge(planner, plan, choice):
            return module.Tried(choice, judged(*next(given)), {"choice": choice.choice.ffn[0]})

        def make_plan(planner, correction):
            self.corrections.append(correction)
            return next(self.plans)

        monkeypatch.setattr(module, "judge_choice", judge)
        monkeypatch.setattr(module, "make_plan", make_plan)


@pytest.mark.parametrize(
    ("plans", "verdicts", "choice", "tried"),
    [
        ([], [MET], 9, ["met"]),
        ([plan(8)], [MISSED, MET], 8, ["missed", "met"]),
        # What was too near the budget is better than what misses it.
        ([plan(8), plan(8)], [NEAR, MISSED], 9, ["inconclusive", "missed"]),
        ([plan(8), plan(7)], [NEAR, MISSED, MISSED], 9, ["inconclusive", "missed", "missed"]),
        ([plan(8), plan(7)], [NEAR, NEAR, MISSED], 8, ["inconclusive", "inconclusive", "missed"]),
        ([plan(8), plan(7)], [NEAR, MISSED, MET], 7, ["inconclusive", "missed", "met"]),
        ([plan(8)], [NEAR, MET], 8, ["inconclusive", "met"]),
        # After a miss the nearest is tried, and nothing after it; after what was too near, it is not.
        ([plan(8, fits=False)], [MISSED, MET], 8, ["missed", "met"]),
        ([plan(8, fits=False)], [MISSED, MISSED], 8, ["missed", "missed"]),
        ([plan(8, fits=False)], [NEAR], 9, ["inconclusive"]),
        # The same again would be judged until it is met by luck.
        ([plan(9)], [MISSED], 9, ["missed"]),
        ([plan(8), plan(7)], [MISSED] * 3, 7, ["missed"] * 3),
    ],
)
def test_what_compress_would_ship_is_counted(monkeypatch, module, plans, verdicts, choice, tried):
    planner = Planner(monkeypatch, module, plans, verdicts)
    found = module.shipped(planner, plan(9))
    assert (found["choice"], found["tried"]) == (choice, tried)
    assert len(found["tries"]) == len(tried)


def test_a_choice_is_written_and_judged(module, shared_session, tiny_teacher, intent_data, fast_profile):
    request = Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile)
    device = Device.of(build_target(fast_profile.target), shared_session.store)
    planner = planner_of(shared_session, gather(shared_session, request), device)
    found = module.shipped(planner, make_plan(planner))
    assert (found["outcome"], found["tried"]) == ("met", ["met"])
    assert found["value_ms"] <= planner.budget_ms


def test_corrections_multiply(monkeypatch, module):
    planner = Planner(monkeypatch, module, [plan(8), plan(6)], [MISSED, MISSED, MET])
    module.shipped(planner, plan(9))
    assert planner.corrections == pytest.approx([12 / 9, 12 / 9 * 12 / 8])
