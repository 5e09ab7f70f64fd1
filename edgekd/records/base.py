"""What everything that a result holds is made of."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict

from edgekd.settings.base import Spec


class Record(Spec):
    """Base of what a result holds: frozen, no unknown keys, and only numbers that JSON can hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _open_end(value: Any) -> Any:
    """Turn an infinite upper end into None: JSON has no infinity."""
    if isinstance(value, list | tuple) and len(value) == 2 and value[1] == math.inf:
        return (value[0], None)
    return value


Interval = Annotated[tuple[float, float | None], BeforeValidator(_open_end)]
"""Lower and upper end; the upper end is None where the samples are too few to bound it."""
