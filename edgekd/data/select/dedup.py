"""Texts that say the same: exact after normalising, and near-equal by MinHash (Broder 1997) with banding."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Signatures = NDArray[np.uint8]

# Near-equal: this share of character 4-grams in common (Jaccard). 64 permutations estimate it to +-0.05 (1 s.d.).
THRESHOLD = 0.8
SHINGLE, PERMUTATIONS = 4, 64
# A band is 4 permutations of a byte each. Two signatures at the threshold differ in at most 12 of 64 bytes, so they
# share at least 4 of the 16 bands: no such pair is missed for want of a common band.
BAND = np.uint32
# Few enough that a block of shingles stays in the processor's cache, and pairs in some 10 MB.
TEXTS_AT_ONCE, PAIRS_AT_ONCE = 1024, 1 << 17
# What ends or encloses a sentence; inside it (3.5, C++) a mark can carry meaning.
EDGE = " .,;:!?…\"'“”‘’«»"


@dataclass(frozen=True)
class Deduplicated:
    """What is left of a set of texts.

    Attributes:
        kept: Positions that stay, ascending.
        repeated: How many were equal to an earlier text after normalising.
        near: How many were near-equal to an earlier text.
        leaks: How many were equal or near-equal to a held-out text.
        examples: Some that went, each with the text because of which it went.
    """

    kept: NDArray[np.int64]
    repeated: int
    near: int
    leaks: int
    examples: tuple[tuple[str, str], ...]


def deduplicate(texts: Sequence[str], held_out: Sequence[str] = (), threshold: float = THRESHOLD) -> Deduplicated:
    """Find what repeats: of equal and near-equal texts the first stays.

    Args:
        held_out: Texts of validation and test: nothing equal or near-equal to one of them stays.
        threshold: Jaccard similarity of character 4-grams from which texts are near-equal.
    """
    first = {normalise(text): ~i for i, text in enumerate(held_out)}  # negative: held out
    fresh, because = [], {}
    for i, text in enumerate(texts):
        earlier = first.setdefault(normalise(text), i)
        if earlier == i:
            fresh.append(i)
        else:
            because[i] = earlier
    del first
    fixed = len(held_out)
    rows = np.array(fresh, dtype=np.int64)
    found = near_equal(signatures([*held_out, *(texts[i] for i in fresh)]), threshold, fixed)[fixed:]
    gone = np.flatnonzero(found >= 0)
    near = {
        int(rows[g]): int(rows[f - fixed]) if f >= fixed else ~int(f) for g, f in zip(gone, found[gone], strict=True)
    }
    leaks = sum(cause < 0 for causes in (because, near) for cause in causes.values())
    repeated = sum(cause >= 0 for cause in because.values())
    shown = [*list(near.items())[:5], *list(because.items())[:5]]
    examples = tuple((texts[i], texts[c] if c >= 0 else held_out[~c]) for i, c in shown)
    return Deduplicated(rows[found < 0], repeated, len(near) + len(because) - repeated - leaks, leaks, examples)


def normalise(text: str) -> str:
    """Case, kinds of spaces and of characters (NFKC), and marks around the whole text made equal."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = " ".join(text.casefold().split())
    return text.strip(EDGE) or text


def signatures(texts: Sequence[str]) -> Signatures:
    """MinHash signatures of the normalised texts' character 4-grams.

    Returns:
        (texts, 64) of bytes. The share of equal bytes estimates the Jaccard similarity.
    """
    found = np.empty((len(texts), PERMUTATIONS), np.uint8)
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32) | np.uint32(1)
    shifts = rng.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        hashes, starts = _shingles(texts[start : start + TEXTS_AT_ONCE])
        permuted = np.empty_like(hashes)
        for k in range(PERMUTATIONS):
            np.multiply(hashes, factors[k], out=permuted)
            np.add(permuted, shifts[k], out=permuted)
            smallest = np.minimum.reduceat(permuted, starts)
            # The smallest value itself is small: only a mixed byte of it tells texts apart.
            found[start : start + TEXTS_AT_ONCE, k] = (smallest * np.uint32(0x9E3779B1)) >> np.uint32(24)
    return found


def near_equal(signed: Signatures, threshold: float = THRESHOLD, fixed: int = 0) -> NDArray[np.int64]:
    """For each row the earlier row, itself kept, that it is near-equal to, or -1.

    Rows that share a band are compared with the band's first row and with their neighbour in it.

    Args:
        signed: (rows, 64), the row to keep of two near-equal ones first.
        threshold: Jaccard similarity from which rows are near-equal.
        fixed: So many first rows stay, whatever they are equal to.
    """
    found = np.full(len(signed), -1, np.int64)
    bands = np.ascontiguousarray(signed).view(BAND)
    for band in range(bands.shape[1]):
        rows = np.flatnonzero(found < 0)
        keys = bands[rows, band]
        order = np.argsort(keys, kind="stable")
        rows, keys = rows[order], keys[order]
        opens = np.ones(len(rows), bool)
        opens[1:] = keys[1:] != keys[:-1]
        first = rows[opens][np.cumsum(opens) - 1]
        for earlier in (first, np.roll(rows, 1)):
            pairs = np.flatnonzero(~opens & (rows >= fixed) & (found[rows] < 0) & (found[earlier] < 0))
            for start in range(0, len(pairs), PAIRS_AT_ONCE):
                these = pairs[start : start + PAIRS_AT_ONCE]
                mine, theirs = rows[these], earlier[these]
                alike = np.mean(signed[mine] == signed[theirs], axis=1) >= threshold
                found[mine[alike]] = theirs[alike]
    while True:  # a row may have gone because of one that went later
        chained = np.flatnonzero(found >= 0)
        chained = chained[found[found[chained]] >= 0]
        if not len(chained):
            return found
        found[chained] = found[found[chained]]


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Hashes of the character 4-grams of each text, padded by spaces, and where each text's begin."""
    padded = [f" {normalise(text)} ".ljust(SHINGLE) for text in texts]
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
    count = len(points) - SHINGLE + 1
    hashes = points[:count].copy()
    for i in range(1, SHINGLE):
        hashes = (hashes * np.uint32(0x9E3779B1)) ^ points[i : count + i]
    ends = np.cumsum(lengths)
    inside = np.ones(len(points), bool)
    for i in range(1, SHINGLE):
        inside[ends - i] = False
    grams = lengths - SHINGLE + 1
    return mix(hashes[inside[:count]]), np.cumsum(grams) - grams


def mix(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finaliser of MurmurHash3: every bit of the input changes every bit of the output."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))
