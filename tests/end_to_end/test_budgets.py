"""--max-mb and --max-memory-mb: two more criteria, the first known to the plan."""

import pytest

from edgekd.pipeline.compress import compress
from edgekd.records.plan import read_plan
from edgekd.settings.profile import override
from edgekd.settings.request import Request


@pytest.fixture(scope="module")
def compressed(shared_session, tiny_teacher, intent_data, fast_profile, brief, tmp_path_factory):
    def run(**changes):
        out = tmp_path_factory.mktemp("budgets") / "bundle"
        profile = override(fast_profile, brief | {key.replace("__", "."): value for key, value in changes.items()})
        return out, compress(
            shared_session, Request(teacher=str(tiny_teacher), data=str(intent_data), profile=profile), out
        )

    return run


def criterion(result, kind):
    return next(c for c in result.criteria if c.kind == kind)


def test_size_moves_the_plan_to_a_smaller_student(compressed):
    out, free = compressed(target__precisions=["fp32"])
    size = (out / "model.onnx").stat().st_size / 1e6
    assert {c.kind for c in free.criteria} == {"latency", "quality"}
    out, bound = compressed(target__precisions=["fp32"], accept__max_mb=0.9 * size)
    found = criterion(bound, "size")
    assert found.outcome == "met"
    assert found.value == pytest.approx((out / "model.onnx").stat().st_size / 1e6)
    assert bound.chosen.shape.encoder_parameters() < free.chosen.shape.encoder_parameters()
    assert any("over --max-mb" in c.note and not c.fits for c in bound.candidates)


def test_size_that_nothing_is_within_is_missed(compressed):
    out, result = compressed(accept__max_mb=0.001)
    assert result.exit_code == 1
    assert criterion(result, "size").outcome == "missed"
    assert "nothing is within --max-mb 0.001" in read_plan(out / "plan.json").reason
    assert (out / "report.html").read_text().count("--max-mb") > 0


def test_memory_is_a_criterion(compressed):
    """A fake process holds 1 MB."""
    _, result = compressed(accept__max_memory_mb=0.5)
    found = criterion(result, "memory")
    assert (found.outcome, found.value, found.unit, result.exit_code) == ("missed", 1.0, "MB", 1)
