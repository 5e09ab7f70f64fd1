"""The parts of the report on the teacher's labels."""

from edgekd.records.labels import CalibrationSummary, ClassNoise, Compared, OutputsSummary
from edgekd.report.html import render


def test_calibration_names_the_noisiest_classes_and_folds_the_rest(sample):
    noise = tuple(ClassNoise(label=f"class {i}", said=20, wrong=0.5 - i / 20) for i in range(11))
    found = CalibrationSummary(rows=400, error=0.083, temperature=1.7, fitted_error=0.021, noise=noise)
    told = render(sample.model_copy(update={"calibration": found}))
    assert "How far the teacher’s labels can be trusted" in told
    for shown in ("8.3%", "1.7", "2.1%", "class 0", "50.0%", "2 more classes"):
        assert shown in told
    # The last class is never wrong.
    assert "class 10" not in told
    assert "can be trusted" not in render(sample)


def test_outputs_are_set_against_teacher_student_and_gold(sample):
    rows = tuple(Compared(name=name, gold=None, outputs=0.9, teacher=0.8) for name in ("teacher outputs, as given",))
    found = OutputsSummary(file="o.jsonl", texts=1200, covered=30, test=100, compared=rows)
    told = render(sample.model_copy(update={"outputs": found}))
    assert "1,200 outputs of another (o.jsonl); they cover 30 of 100 test texts" in told
    assert "Gold labels" not in told
    assert "No test text has one" in render(
        sample.model_copy(update={"outputs": found.model_copy(update={"covered": 0, "compared": ()})})
    )
