"""Tasks by their Hugging Face names. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgekd.models.spec import Spec


class TextClassification(Spec):
    """One label for a sentence, or for a pair of sentences."""

    name: Literal["text-classification"] = "text-classification"
    pair: bool = False


class TokenClassification(Spec):
    """One BIO tag a word; a word's tag is read on its first piece."""

    name: Literal["token-classification"] = "token-classification"


TaskSpec = Annotated[TextClassification | TokenClassification, Field(discriminator="name")]
