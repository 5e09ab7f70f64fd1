"""Tasks by their names, Hugging Face's where it has one. Imports no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from edgekd.settings.base import Spec

Output = Literal["classes", "flags", "value", "joint"]
"""What a logit row means: one class of several (softmax), a yes or no a label (sigmoid), a number, or one class of its
own kind (a text's row of the intents, a word's of the tags)."""

OUTSIDE = "O"
"""The tag of a word that is in no span."""


class TextClassification(Spec):
    """One label for a sentence, or for a pair of sentences."""

    output: ClassVar[Output] = "classes"
    name: Literal["text-classification"] = "text-classification"
    pair: bool = False


class TokenClassification(Spec):
    """One tag a word, in any common scheme; a word's tag is read on its first piece."""

    output: ClassVar[Output] = "classes"
    name: Literal["token-classification"] = "token-classification"


class MultiLabelClassification(Spec):
    """Any number of labels for a sentence, or for a pair of sentences.

    Attributes:
        pair: Texts come in pairs.
        threshold: A label is given where its probability is above this; it goes into the bundle.
    """

    output: ClassVar[Output] = "flags"
    name: Literal["multi-label-classification"] = "multi-label-classification"
    pair: bool = False
    threshold: float = Field(default=0.5, gt=0, lt=1)


class TextRegression(Spec):
    """A number for a sentence, or for a pair of sentences."""

    output: ClassVar[Output] = "value"
    name: Literal["text-regression"] = "text-regression"
    pair: bool = False


class JointIntentSlots(Spec):
    """One label (the intent) a text and one tag (the slot) a word, by one encoder with two heads."""

    output: ClassVar[Output] = "joint"
    name: Literal["joint-intent-slots"] = "joint-intent-slots"


SequenceTask = TextClassification | MultiLabelClassification | TextRegression
"""Tasks with one answer a text, or a pair of texts."""

WordTask = TokenClassification | JointIntentSlots
"""Tasks with an answer a word."""

TaskSpec = Annotated[SequenceTask | WordTask, Field(discriminator="name")]

TASKS: dict[str, type[SequenceTask] | type[WordTask]] = {
    kind.model_fields["name"].default: kind for kind in (*get_args(SequenceTask), *get_args(WordTask))
}
"""Every task by its name."""
