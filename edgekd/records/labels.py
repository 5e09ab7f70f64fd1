"""What is known of the labels that the student learned from, as a result holds it."""

from __future__ import annotations

from edgekd.records.base import Record


class ClassNoise(Record):
    """How often a class is given wrongly.

    Attributes:
        label: The class.
        said: How often the teacher gives it on validation.
        wrong: Share of these where the gold label is another.
    """

    label: str
    said: int
    wrong: float


class CalibrationSummary(Record):
    """The teacher on the gold labels of validation.

    Attributes:
        rows: Answers compared.
        error: Expected calibration error.
        temperature: What its logits are to be divided by; above 1 it is too sure of itself.
        fitted_error: Expected calibration error after that.
        noise: Of each class that it gives, the worst first.
    """

    rows: int
    error: float
    temperature: float
    fitted_error: float
    noise: tuple[ClassNoise, ...]


class Compared(Record):
    """One contender's answers on the test texts that the teacher's outputs cover, as shares of equal answers.

    Attributes:
        name: Whose answers.
        gold: Equal to the gold labels; None without gold labels.
        outputs: Equal to the outputs as given.
        teacher: Equal to the local teacher's.
    """

    name: str
    gold: float | None
    outputs: float
    teacher: float


class OutputsSummary(Record):
    """The outputs that a local teacher was made of.

    Attributes:
        file: Their file's name.
        texts: Texts with an output.
        covered: Test texts with one.
        test: Test texts in all.
        compared: The outputs, the local teacher and the shipped model; empty where no test text has an output.
    """

    file: str
    texts: int
    covered: int
    test: int
    compared: tuple[Compared, ...] = ()
