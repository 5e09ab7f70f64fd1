"""Augmentation policies by name. Imports no torch.

Every policy edits the user's own texts, never a text that was made; what it makes has no label: the teacher
labels it. Ratios are per word, and at least one word is edited wherever one can be.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgekd.settings.base import Spec

Ratio = Annotated[float, Field(gt=0, le=1)]
CasingStyle = Literal["lower", "upper", "title"]


class Augmentation(Spec):
    """What all policies share.

    Attributes:
        copies: New texts to ask for from each text; None: as many as the call says.
    """

    copies: int | None = Field(default=None, ge=1, le=100)


class MaskFill(Augmentation):
    """Words replaced by what a masked LM would put there (TinyBERT, Jiao et al., 2020).

    The paper makes 10 to 30 copies a text. It replaces words of several pieces by GloVe neighbours; here the
    masked LM answers for them too.

    Attributes:
        masked_lm: Local folder of the masked LM, weights as safetensors.
        ratio: Probability that a word is replaced.
        top_k: The word is drawn evenly from so many of the likeliest other words.
        stop_words: Words left alone: the common English function words, or none.
        keep_slots: Leave words inside tagged spans alone, where tags are known.
    """

    name: Literal["mask_fill"] = "mask_fill"
    masked_lm: str = Field(min_length=1)
    ratio: Ratio = 0.4
    top_k: int = Field(default=15, ge=1, le=1000)
    stop_words: Literal["english", "none"] = "english"
    keep_slots: bool = True


class Swap(Augmentation):
    """Two random words change places, max(1, ratio x words) times (EDA, Wei and Zou, 2019).

    For token tasks only words tagged O change places.
    """

    name: Literal["swap"] = "swap"
    ratio: Ratio = 0.1


class Delete(Augmentation):
    """Each word is left out with probability `ratio`, but never all (EDA); for token tasks only words tagged O."""

    name: Literal["delete"] = "delete"
    ratio: Ratio = 0.1


class Typos(Augmentation):
    """One letter of a word becomes its neighbour on a QWERTY keyboard.

    Attributes:
        ratio: Probability that a word gets a typo.
        min_letters: Words with fewer QWERTY letters are left alone.
    """

    name: Literal["typos"] = "typos"
    ratio: Ratio = 0.1
    min_letters: int = Field(default=4, ge=1)


class Casing(Augmentation):
    """The whole text in lower case, upper case or with a capital a word.

    Attributes:
        styles: What is drawn from, evenly among those that change the text.
    """

    name: Literal["casing"] = "casing"
    styles: tuple[CasingStyle, ...] = Field(default=("lower", "upper", "title"), min_length=1)


class SlotSwap(Augmentation):
    """A span's words replaced by those of another span of its type seen in the split (Dai and Adel, 2020).

    Attributes:
        ratio: Probability that a span is replaced.
    """

    name: Literal["slot_swap"] = "slot_swap"
    ratio: Ratio = 0.5


class BackTranslation(Augmentation):
    """Into another language and back, sampled both ways for variety.

    Attributes:
        there: Local folder of the Marian model that translates the texts.
        back: Local folder of the Marian model that translates them back.
        top_p: Nucleus that is sampled from.
        temperature: Below 1 stays closer to the likeliest translation.
        language: Put before each text on the way there, as models of several target languages need: ">>fr<<".
    """

    name: Literal["back_translation"] = "back_translation"
    there: str = Field(min_length=1)
    back: str = Field(min_length=1)
    top_p: Ratio = 0.9
    temperature: float = Field(default=0.9, gt=0, le=2)
    language: str = ""


AugmentationSpec = Annotated[
    MaskFill | Swap | Delete | Typos | Casing | SlotSwap | BackTranslation, Field(discriminator="name")
]
