"""The exported files of a run: what the export stage keeps, and verdict and report show."""

from __future__ import annotations

from typing import Literal

from edgekd.records.base import Interval, Record


class Parity(Record):
    """Two models on the same rows.

    Attributes:
        rows: Texts (or tokens) compared.
        max_abs_gap: Largest absolute difference of any logit.
        label_agreement: Share of the rows with the same largest logit, in [0, 1].
    """

    rows: int
    max_abs_gap: float
    label_agreement: float


class Quantisation(Record):
    """Whether INT8 was kept.

    Attributes:
        kept: Whether it may be deployed.
        drop_points: Points of the metric that it costs on validation, with `kept_float` in FP32.
        limit_points: Points that it may cost.
        reason: One sentence or more.
        method: Whether activations are scaled as they come, or by ranges found beforehand.
        agreement: Share of the answers that are FP32's.
        kept_float: Nodes left in FP32, since INT8 cost too much with them.
        drop_before: Points that it cost without that.
        reduce_range: Whether weights have 7 bits, since the target saturates at 8.
        saturated: Whether it was judged on a machine that saturates, unlike its target.
        instruction_set: Of the target.
        fp32: Score on validation without INT8.
        int8: Score on validation with it.
    """

    kept: bool
    drop_points: float | None = None
    limit_points: float
    reason: str
    method: Literal["dynamic", "static"] = "dynamic"
    agreement: float | None = None
    kept_float: tuple[str, ...] = ()
    drop_before: float | None = None
    reduce_range: bool = False
    saturated: bool = False
    instruction_set: str = ""
    fp32: float | None = None
    int8: float | None = None


class Form(Record):
    """A form of the graph that was measured.

    Attributes:
        name: Of the form.
        precision: "fp32" or "int8".
        median_ms: Of the model alone.
        ratio: To the given form's, round by round.
        interval: Of the ratio, 95%; the upper end is None where the rounds do not bound it.
        gap: Largest gap of a logit to the given form; None where it gave no answers.
        same: Whether that is rounding alone.
        chosen: Whether it is the bundle's.
        fused: What onnxruntime fuses in it, by kind.
    """

    name: str
    precision: Literal["fp32", "int8"]
    median_ms: float
    ratio: float | None
    interval: Interval | None
    gap: float | None
    same: bool
    chosen: bool
    fused: dict[str, int] = {}


class Half(Record):
    """The FP16 file.

    Attributes:
        max_abs_gap: Largest gap of a logit to FP32.
        agreement: Share of the answers that are FP32's.
        masks: Constants that would have become infinite, and were replaced.
        kept: Nodes left in FP32, since their activations pass FP16's range.
    """

    max_abs_gap: float
    agreement: float
    masks: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class Exported(Record):
    """What the export stage made of a model.

    Attributes:
        parity: Of the FP32 file with PyTorch.
        quantisation: The INT8 file; None where none was asked for.
        half: The FP16 file, where one was made.
        forms: The forms of the graph that were measured, where it was chosen so.
        fused: By file, the nodes that onnxruntime fuses on the CPU, by kind.
    """

    parity: Parity
    quantisation: Quantisation | None = None
    half: Half | None = None
    forms: tuple[Form, ...] = ()
    fused: dict[str, dict[str, int]] = {}
