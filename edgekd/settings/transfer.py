"""What text the student learns from. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from edgekd.settings.augment import AugmentationSpec
from edgekd.settings.base import Spec
from edgekd.settings.select import GenericText


class Transfer(Spec):
    """The transfer set: target-domain texts, generic texts that are like them, and texts made from the labelled ones.

    The teacher labels all of them; gold labels are not used, except by losses that ask for them.

    Attributes:
        use_labelled: Take the training texts.
        use_unlabeled: Take the unlabelled texts.
        max_texts: At most so many target texts, chosen by a seeded shuffle; None takes all.
        near_equal: Jaccard similarity of character 4-grams from which an unlabelled or generic text is left out as a
            repetition of another, or of one in validation or test; None leaves out equal texts alone.
        generic: Generic texts added to the target texts; None adds none.
        augment: Policies that make new texts from the labelled ones, or from all target texts where none is labelled.
        copies: New texts that each policy is asked for from each text, unless it says itself.
        consistent: Keep a new text only where the teacher says of it what it says of its original.
        augment_pairs: Edit pairs too, one of the two texts: an edit can change how they relate.
    """

    use_labelled: bool = True
    use_unlabeled: bool = True
    max_texts: int | None = Field(default=None, ge=1)
    near_equal: float | None = Field(default=0.8, gt=0, le=1)
    generic: GenericText | None = None
    augment: tuple[AugmentationSpec, ...] = ()
    copies: int = Field(default=1, ge=1, le=100)
    consistent: bool = False
    augment_pairs: bool = False

    @property
    def adds(self) -> bool:
        """Whether anything is added to the target texts."""
        return self.generic is not None or bool(self.augment)
