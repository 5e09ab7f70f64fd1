"""A chain of the user's own against the teacher alone, before anything is measured."""

from __future__ import annotations

from edgekd.assistants.choose import Gap, fixed
from edgekd.inputs.gather import Inputs
from edgekd.settings.shape import Slice


def check_shapes(inputs: Inputs) -> None:
    """Refuse a chain of the user's own that goes with no student of this teacher.

    Whether it goes with the student that is planned is known only then: see `check_chain`.

    Raises:
        UsageError: See `fixed`.
    """
    spec, hosted = inputs.profile.distill.assistants, inputs.teacher.hosted
    if spec.name != "fixed" or hosted is None:
        return
    # The least that any chain can lead to, so that nothing is held against it for its student's sake.
    least = Slice(layers=spec.shapes[-1].layers[:1], heads=(1,), ffn=(1,))
    fixed(Gap(hosted[0], least, hosted[0].hidden, ()), spec.shapes)
