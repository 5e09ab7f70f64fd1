"""The promise: a budget, the calls that it is about, and what else a bundle must keep to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.errors import UsageError
from edgekd.settings.base import Spec


class Budget(Spec):
    """The promise: this percentile of the end-to-end latency stays within `latency_ms`.

    Attributes:
        latency_ms: Milliseconds a call; None until the user gives one.
        percentile: Which percentile the limit is on, in percent: 95, not 0.95.
        headroom: Share of the budget that the plan leaves free, against noise and prediction error.
    """

    latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    percentile: float = Field(default=95, ge=1, lt=100)
    headroom: float = Field(default=0.07, ge=0, lt=1)

    def asked_ms(self) -> float:
        """The limit, once it was given.

        Raises:
            UsageError: It was not.
        """
        if self.latency_ms is None:
            raise UsageError(
                "--latency-ms is missing: how many milliseconds may a call take? `edgekd compress --latency-ms 10`,"
                " without a teacher, shows it on synthetic data, in four minutes or more"
            )
        return self.latency_ms


class Workload(Spec):
    """The calls that the budget is about.

    Attributes:
        batch_size: Texts a call.
        max_length: Tokens at which the budget is judged and longer texts are cut; "auto" is the 99.9th
            percentile of train + unlabeled, rounded up to 8 and capped by the model (128 without data).
        judge: "fixed" judges at `max_length`; "replay" on real texts at their own lengths. Both are reported.
    """

    batch_size: int = Field(default=1, ge=1)
    max_length: Literal["auto"] | int = "auto"
    judge: Literal["fixed", "replay"] = "fixed"


class Accept(Spec):
    """The quality floor, and the limits beside latency.

    Attributes:
        min_retained: Share of the teacher's metric on test that the student must keep, by a paired interval.
        max_drop: Points of the metric that quantisation may cost, on validation.
        max_mb: Largest model.onnx, in MB of 10^6 bytes; None sets no limit.
        max_memory_mb: Most memory that the process which runs the bundle may ever hold, Python and the runtime
            included, in MB of 2^20 bytes; None sets no limit.
    """

    min_retained: float = Field(default=0.97, gt=0, le=1)
    max_drop: float = Field(default=0.5, ge=0)
    max_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_memory_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
