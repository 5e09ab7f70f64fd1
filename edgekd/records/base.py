"""What everything that a result holds is made of."""

from __future__ import annotations

from pydantic import ConfigDict

from edgekd.settings.base import Spec


class Record(Spec):
    """Base of what a result holds: frozen, no unknown keys, and only numbers that JSON can hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
