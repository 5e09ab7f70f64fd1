"""A family of students in one elastic run: when it is taken, and how its members are trained on."""

import pytest

from edgekd.pipeline import attempt as attempts
from edgekd.pipeline import family as family_module
from edgekd.pipeline.attempt import train_student
from edgekd.pipeline.chain import REFRESH
from edgekd.pipeline.family import compress_family
from edgekd.plan.stage import first_weights
from edgekd.profile import override


def test_four_students_share_a_run_and_are_trained_on_briefly(shared_session, request_, tmp_path, monkeypatch):
    profile = override(request_.profile, {"search.select": "kept", "distill.stages.0.training.epochs": 10})
    lengths, begun, cut = [], [], []

    def train(session, inputs, start, lesson, *, longer, spec):
        lengths.append(spec.stages[0].training.epochs)
        begun.append(start.id)
        return train_student(session, inputs, start, lesson, longer=longer, spec=spec)

    def first(*given):
        cut.append(first_weights(*given))
        return cut[-1]

    monkeypatch.setattr(attempts, "train_student", train)
    monkeypatch.setattr(attempts, "first_weights", first)
    asked = request_.model_copy(update={"profile": profile})
    family, _ = compress_family(shared_session, asked, (0.02, 0.024, 0.028, 0.032), tmp_path)
    assert family.elastic
    assert lengths == [10 * REFRESH] * 4
    assert not set(begun) & {start.id for start in cut}  # the run has trained them since they were cut
    assert len({m.shape for m in family.members}) == 4
    assert all(m.latency_ms <= m.budget_ms for m in family.members)


@pytest.mark.parametrize(
    ("members", "changes"),
    [(3, {}), (4, {"distill.stages.0.loss": {"name": "hidden_mse"}}), (4, {"distill.init": {"name": "random"}})],
)
def test_each_alone_where_together_costs_more_or_cannot_be(shared_session, request_, monkeypatch, members, changes):
    monkeypatch.setattr(family_module, "gather", None)  # known before anything is read
    profile = override(request_.profile, {"search.select": "kept"} | changes)
    asked = request_.model_copy(update={"profile": profile})
    assert family_module._shared_run(shared_session, [asked] * members) is None
