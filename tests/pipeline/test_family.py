"""A family of students in one elastic run: when it is taken, and how its members are trained on."""

from dataclasses import replace

import pytest

from edgekd.assistants.chain import REFRESH
from edgekd.errors import UsageError
from edgekd.output import locked
from edgekd.pipeline import build
from edgekd.pipeline import family as family_module
from edgekd.pipeline.build import train_student
from edgekd.pipeline.family import compress_family
from edgekd.pipeline.sources import gather
from edgekd.plan import planner as planners
from edgekd.plan.measure_teacher import measure_teacher
from edgekd.plan.weights import first_weights
from edgekd.proof.criteria import quality_criterion
from edgekd.settings.profile import override


def test_four_students_share_a_run_and_are_trained_on_briefly(shared_session, request_, tmp_path, monkeypatch):
    profile = override(request_.profile, {"search.select": "kept", "distill.stages.0.training.epochs": 10})
    lengths, begun, cut = [], [], []

    def train(session, inputs, start, lesson, spec, *, longer):
        lengths.append(spec.stages[0].training.epochs)
        begun.append(start.id)
        return train_student(session, inputs, start, lesson, spec, longer=longer)

    def first(*given):
        cut.append(first_weights(*given))
        return cut[-1]

    monkeypatch.setattr(build, "train_student", train)
    monkeypatch.setattr(build, "first_weights", first)
    asked = request_.model_copy(update={"profile": profile})
    family, _ = compress_family(shared_session, asked, (0.02, 0.024, 0.028, 0.032), tmp_path)
    assert all(m.elastic for m in family.members)
    assert lengths == [10 * REFRESH] * 4
    assert not set(begun) & {start.id for start in cut}  # the run has trained them since they were cut
    assert len({m.shape for m in family.members}) == 4
    assert all(m.latency_ms <= m.budget_ms for m in family.members)
    report = (tmp_path / "0.02ms" / "report.html").read_text()
    assert "cut out of one elastic run of 4 students" in report


def test_a_member_that_keeps_too_little_is_trained_alone(shared_session, request_, tmp_path, monkeypatch):
    lengths = []

    def train(session, inputs, start, lesson, spec, *, longer):
        lengths.append(spec.stages[0].training.epochs)
        return train_student(session, inputs, start, lesson, spec, longer=longer)

    def strict(retained, name, floor):
        criterion = quality_criterion(retained, name, floor)
        return criterion.model_copy(update={"outcome": "missed"}) if len(lengths) == 1 else criterion

    monkeypatch.setattr(build, "train_student", train)
    monkeypatch.setattr(build, "quality_criterion", strict)
    profile = override(request_.profile, {"search.select": "kept", "distill.stages.0.training.epochs": 10})
    asked = request_.model_copy(update={"profile": profile})
    family, results = compress_family(shared_session, asked, (0.02, 0.024, 0.028, 0.032), tmp_path)
    assert lengths == [1, 10, 1, 1, 1]
    assert [m.elastic for m in family.members] == [False, True, True, True]
    assert "train it alone" in results[0].tries[0].action


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"distill.stages.0.loss": {"name": "hidden_mse"}}, "more than the teacher's logits"),
        ({"distill.stages.0.hard_weight": 1.0}, "more than the teacher's logits"),
        ({"distill.stages.0.mixup": {}}, "more than the teacher's logits"),
        ({"distill.init": {"name": "random"}}, "distill.init is random"),
        ({"distill.assistants": {"name": "ratio"}}, "distill.assistants is ratio"),
        ({}, ""),
    ],
)
def test_what_an_elastic_run_cannot_learn_is_trained_alone(fast_profile, changes, why):
    found = family_module._needs_alone(override(fast_profile, changes).distill)
    assert why in found
    assert bool(found) == bool(why)


def test_two_students_are_trained_alone_and_read_once(shared_session, request_, tmp_path, monkeypatch):
    read = []

    def once(session, request):
        read.append(request)
        return gather(session, request)

    monkeypatch.setattr(family_module, "gather", once)
    asked = request_.model_copy(update={"profile": override(request_.profile, {"search.select": "kept"})})
    planned = family_module._plan_all(
        shared_session,
        [
            asked.model_copy(update={"profile": override(asked.profile, {"budget.latency_ms": budget})})
            for budget in (0.02, 0.028)
        ],
    )
    assert len(read) == 1
    assert [p.planner.budget_ms for p in planned] == [p.plan.budget_ms for p in planned] == [0.02, 0.028]
    assert all(p.shared is None for p in planned)


def test_the_teacher_is_measured_once_for_all_budgets(planner, monkeypatch):
    calls = []

    def measured(*given):
        calls.append(given)
        return measure_teacher(*given)

    monkeypatch.setattr(planners, "measure_teacher", measured)
    base = replace(planner, known={})
    found = [base.for_budget(budget) for budget in (0.02, 0.03)]
    assert found[0].latency is found[1].latency
    assert len(calls) == 1
    assert [each.inputs.profile.budget.latency_ms for each in found] == [each.budget_ms for each in found]


def test_a_chain_that_one_member_cannot_be_cut_from_is_refused_before_training(shared_session, request_, monkeypatch):
    shapes = [{"layers": [0, 1, 2], "heads": [2, 1, 2], "ffn": [16, 24, 32]}]
    changes = {"search.select": "kept", "distill.assistants": {"name": "fixed", "shapes": shapes}}
    requests = [
        request_.model_copy(
            update={"profile": override(request_.profile, changes | {"budget.latency_ms": budget})},
        )
        for budget in (0.012, 0.032)
    ]
    with pytest.raises(UsageError, match=r"--family 0\.032: distill\.assistants\.shapes\.0: the student cannot be cut"):
        family_module._plan_all(shared_session, requests)


def test_one_run_a_family(shared_session, request_, tmp_path, monkeypatch):
    monkeypatch.setattr(family_module, "_plan_all", lambda *given: pytest.fail("it began"))
    out = tmp_path / "family"
    with locked(out), pytest.raises(UsageError, match="another run is making it"):
        compress_family(shared_session, request_, (0.02, 0.028), out)
