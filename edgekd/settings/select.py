"""Which generic text is added to the target text. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.settings.base import Seed, Spec

Method = Literal["cascade", "ngrams", "clusters", "random"]


class GenericText(Spec):
    """Generic text that supplements the target text.

    Attributes:
        path: A file or a folder of files: .txt .jsonl .json .csv .tsv .parquet.
        ratio: So many generic texts for each target text.
        size: So many generic texts, whatever the target; None follows `ratio`.
        method: "ngrams" chooses by importance weights of hashed n-grams (DSIR), "clusters" by the cosine to the nearest
            cluster of the target in the teacher's space, "cascade" by the first and then, among the best, by the
            second. "random" is the control.
        seed: Decides noise, samples and the start of k-means.
        clusters: Clusters of the target; None takes the root of half the number of texts, 8 to 256.
        buckets: Buckets that n-grams are hashed into.
        noise: Add Gumbel noise to the importance weights: texts are sampled by weight, not the heaviest taken.
    """

    path: str = Field(min_length=1)
    ratio: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    size: int | None = Field(default=None, ge=1)
    method: Method = "cascade"
    seed: Seed = 0
    clusters: int | None = Field(default=None, ge=1)
    buckets: int = Field(default=10_000, ge=2, le=2**24)
    noise: bool = True

    def wanted(self, target: int) -> int:
        """How many generic texts to choose for `target` target texts."""
        return self.size if self.size is not None else max(1, round(self.ratio * target))
