"""A student that starts from a compact encoder which others have trained."""

from __future__ import annotations

from pathlib import Path

from edgekd.errors import UsageError
from edgekd.models.initialize import Weights, random_initial
from edgekd.models.teacher import Encoder, HeadKind, load_body
from edgekd.settings.shape import Activation, EncoderShape, HeadShape, Pool


def load_checkpoint(folder: str) -> Encoder:
    """Load the encoder that `distill.init.folder` names.

    Raises:
        UsageError: There is no such folder, or it holds no encoder that can be a student.
    """
    try:
        encoder = load_body(Path(folder))
    except UsageError as error:
        raise UsageError(f"distill.init.folder: {error}") from error
    if encoder.hosted is None:
        raise UsageError(
            f"distill.init.folder {folder}: a {encoder.model.config.model_type} cannot be a student: take a BERT, "
            "RoBERTa, XLM-R, ELECTRA or DistilBERT"
        )
    return encoder


def checkpoint_shape(
    encoder: Encoder, head: HeadKind, labels: int, slots: int = 0, *, pool: Pool = "first"
) -> EncoderShape:
    """The encoder's shape under a task head: BERT's dense layer and tanh before a text's logits, none on a mean."""
    assert encoder.hosted is not None
    activation: Activation | None = None if head == "token" or pool == "mean" else "tanh"
    shape = HeadShape(kind=head, labels=labels, activation=activation, slots=slots, pool=pool)
    return encoder.hosted[0].model_copy(update={"head": shape})


def checkpoint_weights(encoder: Encoder, shape: EncoderShape, seed: int) -> Weights:
    """The encoder's weights, and random ones for the head of `shape`."""
    assert encoder.hosted is not None
    return dict(encoder.hosted[1]) | random_initial(shape, seed, part="head.")
