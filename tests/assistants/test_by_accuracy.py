"""Finalists compared by accuracy: who competes, who wins, and what is said."""

from dataclasses import replace

import numpy as np
import pytest

from edgekd.assistants import by_accuracy as finals
from edgekd.assistants import one_run as together
from edgekd.assistants.by_accuracy import by_accuracy
from edgekd.errors import UsageError
from edgekd.pipeline.compress import compress
from edgekd.pipeline.sources import gather
from edgekd.plan.planner import planner_of
from edgekd.plan.stage import make_plan
from edgekd.records.plan import Candidate, Plan
from edgekd.settings.profile import override
from edgekd.settings.shape import Slice
from tests.conftest import Told

DEEP = Slice(layers=(0, 1, 2), heads=(1, 1, 1), ffn=(8, 8, 8))
WIDE = Slice(layers=(0, 2), heads=(2, 1), ffn=(16, 24))
FLAT = Slice(layers=(0,), heads=(4,), ffn=(48,))
ALONE = Slice(layers=(1,), heads=(4,), ffn=(48,))


def plan_of(planner, *students, chosen=0):
    """A plan of these (slice, precision, kept, fits) students."""
    shape = planner.inputs.teacher.hosted[0]
    shapes = {s: shape.model_copy(update={"heads": s.heads, "ffn": s.ffn}) for s, *_ in students}
    candidates = tuple(
        Candidate(
            kind="student", precision=precision, shape=shapes[s], choice=s, kept=kept, predicted_ms=1.0,
            measured_ms=1.0, fits=fits,
        )
        for s, precision, kept, fits in students
    )  # fmt: skip
    return Plan(
        budget_ms=1, percentile=95, limit_ms=1, max_length=16, batch_size=1, overhead_ms=0, tail=1,
        candidates=candidates, chosen=chosen, reason="keeps most; on a made-up device",
    )  # fmt: skip


@pytest.fixture
def scripted(monkeypatch):
    """Rounds whose scores are given by slice; returns the rounds that were run."""
    rounds = []

    def script(scores, texts=1000):
        def run(store, engine, hosted, importance, slices, task, lesson, stage, seed, title):
            rounds.append((tuple(slices), stage.training.epochs))
            draws = np.random.default_rng(0).random((len(slices), texts))
            counts = [
                np.stack([draw < scores.get(s, 0), np.ones(texts)], axis=1).astype(int)
                for draw, s in zip(draws, slices, strict=True)
            ]
            return type("Run", (), {"slices": slices, "scores": [scores.get(s, 0) for s in slices], "counts": counts})

        monkeypatch.setattr(together, "train_elastic", run)
        monkeypatch.setattr(finals, "elastic_flops", lambda *a: 1e6)
        return rounds

    return script


def test_half_go_on_with_a_longer_schedule_and_the_most_accurate_wins(planner, scripted):
    rounds = scripted({DEEP: 0.80, WIDE: 0.95, FLAT: 0.90, ALONE: 0.5})
    found = by_accuracy(
        planner, plan_of(planner, (DEEP, "int8", 0.6, True), (FLAT, "int8", 0.5, True), (WIDE, "int8", 0.4, True))
    )
    assert found.choice.choice == WIDE
    assert found.reason.startswith(
        "the most accurate of 3 compared on validation, keeps 40% of the teacher's importance; this comparison cost "
    )
    assert found.reason.endswith("fine-tunes; on a made-up device")  # not "keeps most": another does
    (first, _), (second, _) = rounds
    # Before them what all of them keep.
    assert (set(first[1:]), set(second[1:])) == ({DEEP, FLAT, WIDE}, {FLAT, WIDE})
    assert [epochs for _, epochs in rounds] == [1.0, 2.0]
    assert found.candidates[0].note == "80.0% in round 1"


def test_two_that_validation_cannot_tell_apart_are_chosen_by_what_they_keep(planner, scripted):
    scripted({DEEP: 0.90, WIDE: 0.9001}, texts=50)
    found = by_accuracy(planner, plan_of(planner, (DEEP, "int8", 0.6, True), (WIDE, "int8", 0.5, True), chosen=1))
    assert found.choice.choice == DEEP
    assert found.reason.startswith(
        "of the two best of 2 compared the one that keeps more of the teacher's importance, 60%; validation (80 texts) "
        "is too small to rank them: they differ by 0.01 points, standard error "
    )


def test_one_text_does_not_drop_the_one_that_keeps_most(planner, scripted):
    students = [(DEEP, "int8", 0.6, True), (FLAT, "int8", 0.5, True), (WIDE, "int8", 0.4, True)]
    scores = {DEEP: 0.5, FLAT: 0.75, WIDE: 0.75}
    rounds = scripted(scores, texts=4)
    shown = Told()
    session = replace(planner.session, engine=replace(planner.session.engine, progress=shown))
    found = by_accuracy(replace(planner, session=session), plan_of(planner, *students))
    assert found.choice.choice == DEEP
    assert DEEP in rounds[-1][0][1:]
    (line,) = shown.lines
    assert "validation (80 texts) is too small to rank: the student that keeps most importance goes on" in line
    assert "behind another by 25.00 points, standard error " in line
    # A thousand texts can tell.
    rounds = scripted(scores)
    assert by_accuracy(planner, plan_of(planner, *students)).choice.choice != DEEP
    assert DEEP not in rounds[-1][0][1:]


def test_only_slices_that_fit_compete_and_fp32_is_preferred(planner, scripted):
    rounds = scripted({DEEP: 0.9, WIDE: 0.5})
    deep = [(DEEP, precision, 0.6, True) for precision in ("int8", "fp32")]
    found = by_accuracy(planner, plan_of(planner, (WIDE, "fp32", 0.7, True), *deep, (FLAT, "fp32", 0.9, False)))
    assert all(FLAT not in slices for slices, _ in rounds)
    assert (found.choice.choice, found.choice.precision) == (DEEP, "fp32")


def test_one_that_fits_is_left(planner, scripted):
    plan = plan_of(planner, (DEEP, "int8", 0.6, True))
    found = by_accuracy(planner, plan)
    assert found.chosen == plan.chosen
    why = "accuracy was not compared: only slices of the teacher can be, and fewer than two fit"
    assert found.reason == f"{plan.reason}; {why}"


def test_students_that_are_not_cut_cannot_be_compared(shared_session, request_, planner):
    profile = override(request_.profile, {"distill.init": {"name": "random"}})
    inputs = gather(shared_session, request_.model_copy(update={"profile": profile}))
    with pytest.raises(
        UsageError, match=r"search\.select accuracy compares slices of the teacher, but distill\.init is random"
    ):
        by_accuracy(planner_of(shared_session, inputs, planner.device), plan_of(planner, (DEEP, "int8", 0.6, True)))


def test_select_is_not_in_the_plans_key_and_the_choice_is_told(shared_session, request_, planner, tmp_path):
    kept = override(request_.profile, {"search.select": "kept"})
    inputs = gather(shared_session, request_.model_copy(update={"profile": kept}))
    other = planner_of(shared_session, inputs, planner.device)
    assert make_plan(other) == make_plan(planner)
    assert by_accuracy(other, make_plan(other)) == make_plan(other)
    result = compress(shared_session, request_, tmp_path / "b", with_baselines=False)
    told = [c.note for c in result.candidates if "in round" in c.note]
    assert len(told) >= 2
    assert result.chosen.note in told
