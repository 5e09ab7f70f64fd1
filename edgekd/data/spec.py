"""What text the student learns from. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from edgekd.models.spec import Spec


class Transfer(Spec):
    """The transfer set: labelled texts (their labels unused) and unlabelled target-domain texts.

    Attributes:
        use_labelled: Take the training texts.
        use_unlabeled: Take the unlabelled texts.
        max_texts: At most so many, chosen by a seeded shuffle; None takes all.
    """

    use_labelled: bool = True
    use_unlabeled: bool = True
    max_texts: int | None = Field(default=None, ge=1)
