import pytest

from edgekd.records.result import QualityRow
from edgekd.report import wording
from edgekd.report.html import render
from edgekd.report.model_card import model_card


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0.00"),
        (0.00001, "< 0.0001"),
        (0.07, "0.07"),
        (0.852, "0.85"),
        (8.714, "8.71"),
        (41.25, "41.2"),
        (1234.5, "1,234"),
    ],
)
def test_number(value, told):
    assert wording.number(value) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(3.21, "3.2 s"), (59.96, "1 min 00 s"), (245, "4 min 05 s"), (7800, "2 h 10 min")]
)
def test_duration(seconds, told):
    assert wording.duration(seconds) == told


@pytest.mark.parametrize(
    ("value", "told"), [(950, "950"), (22_713_216, "22.7 M"), (999_999, "999,999"), (1_200_000_000, "1.2 B")]
)
def test_count(value, told):
    assert wording.count(value) == told


def test_interval():
    assert wording.interval((8.62, 8.8)) == "8.62 to 8.80"
    assert wording.interval((8.62, None)) == "above 8.62"
    assert wording.interval((0.985, 1.0), "share") == "98.5 to 100.0%"
    assert wording.interval(None) == ""


def test_headline(sample, minimal):
    assert wording.headline(sample).startswith("Ready to deploy: 95% of calls need at most 8.")
    assert wording.headline(sample).endswith("the student keeps 99.5% of the teacher’s accuracy.")
    assert wording.headline(minimal) == "Not measured yet: run the verify kit on the device to judge the 5 ms budget."


def test_what_is_shipped_is_named_for_what_it_is(sample):
    rows = tuple(r.model_copy(update={"shipped": r.name == "teacher, INT8"}) for r in sample.quality)
    assert "the quantised teacher keeps 99.6%" in wording.headline(sample.model_copy(update={"quality": rows}))
    rows = tuple(r.model_copy(update={"shipped": r.name == "teacher"}) for r in sample.quality)
    unchanged = sample.model_copy(update={"quality": rows})
    assert wording.pitch(unchanged) == "the unchanged teacher"
    assert wording.shrinkage(unchanged) is None


def test_the_machine_is_the_gpu_where_that_ran(sample):
    request = {"profile": {"target": {"kind": "onnxruntime-cuda", "threads": 1}}}
    result = sample.model_copy(update={"machine": {"cpu_model": "C", "gpu": "G"}, "request": request, "versions": {}})
    assert wording.machine_line(result) == "G"
    assert wording.machine_line(result.model_copy(update={"request": {}})) == "C"


def test_reasons_name_only_what_failed(sample):
    first, *rest = sample.criteria
    missed = first.model_copy(update={"outcome": "missed", "explanation": "too slow"})
    assert wording.reasons(sample.model_copy(update={"criteria": (missed, *rest)})) == ["latency p95: too slow"]


@pytest.mark.parametrize(
    ("ahead", "told"),
    [(0.01, ""), (0.001, "Distillation made no difference here: "), (-0.01, "Distillation lost here: ")],
)
def test_distillation_that_brought_nothing_is_told(sample, ahead, told):
    plain = "student, fine-tuned without distillation"
    rows = [row.model_copy(update={"score": sample.shipped.score - ahead}) if row.name == plain else row
            for row in sample.quality]  # fmt: skip
    note = wording.distillation_note(sample.model_copy(update={"quality": tuple(rows)}))
    assert note.startswith(told)
    assert bool(note) == bool(told)


@pytest.mark.parametrize(
    ("ahead", "told"),
    [(0.01, ""), (0.001, "The assistant made no difference here: "), (-0.01, "The assistant lost here: ")],
)
def test_an_assistant_that_brought_nothing_is_told_where_quality_is(sample, ahead, told):
    score = sample.shipped.score - ahead
    row = QualityRow(name="student, no assistant at the same compute", score=score)
    result = sample.model_copy(update={"quality": (*sample.quality, row)})
    note = wording.assistant_note(result)
    assert note.startswith(told)
    assert bool(note) == bool(told)
    if note:
        assert f"{100 * score:.1f}% without it at the same compute, 95.1% with it" in note
        assert note in render(result)
        assert note in model_card(result)
    assert wording.assistant_note(sample) == ""


def test_int8_that_was_refused_is_not_told_as_shipped(sample):
    rows = tuple(
        r.model_copy(update={"shipped": r.name == "student FP32", "precision": "fp32"}) for r in sample.quality
    )
    assert wording.pitch(sample.model_copy(update={"quality": rows})).endswith(", FP32")
    assert wording.pitch(sample).endswith(", INT8")
