"""What the student learned from: how many texts of each kind, and how the generic ones were chosen."""

from __future__ import annotations

from edgekd.records.base import Record


class Likeness(Record):
    """How like the target the chosen generic texts are, and how like a sample of the pool.

    Attributes:
        name: "n-grams" (mean log weight of an n-gram, nats) or "clusters" (cosine to the nearest centroid).
        edges: Of the histogram's bins.
        chosen: Chosen texts in each bin (of at most 2,000).
        pool: Texts of the pool's sample in each bin (of at most 2,000).
        chosen_mean: Mean over the chosen texts.
        pool_mean: Mean over the pool's sample.
    """

    name: str
    edges: tuple[float, ...]
    chosen: tuple[int, ...]
    pool: tuple[int, ...]
    chosen_mean: float
    pool_mean: float


class GenericSummary(Record):
    """The generic texts of the transfer set.

    Attributes:
        wanted: How many were asked for.
        pool_size: Texts in the pool.
        sources: How many came from which file, most first.
        kl_reduction: Nats by which the chosen n-grams are nearer to the target's than those of as many random texts.
        likeness: To the target, of the chosen texts and of the pool.
        chosen_examples: Chosen texts and their likeness (the last of `likeness`), from most to least like.
        refused_examples: The same for texts of the pool's sample that were not chosen.
        seconds: By stage: "survey", "scan" (scores and near-equal texts of the whole pool), "clusters", "report".
    """

    wanted: int
    pool_size: int
    sources: dict[str, int]
    kl_reduction: float
    likeness: tuple[Likeness, ...]
    chosen_examples: tuple[tuple[str, float], ...] = ()
    refused_examples: tuple[tuple[str, float], ...] = ()
    seconds: dict[str, float] = {}


class TransferSummary(Record):
    """The text that the student learned from.

    Attributes:
        counts: Texts of each kind: labelled, unlabelled, generic, augmented.
        policies: Augmented texts of each policy.
        generic: How generic texts were chosen.
    """

    counts: dict[str, int]
    policies: dict[str, int] = {}
    generic: GenericSummary | None = None
