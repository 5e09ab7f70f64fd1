"""Splits that the user did not give, made from those given by a hash of each text."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from edgekd.data.split import Split
from edgekd.errors import DataError

# A held-out part is a tenth, but not fewer than 100 texts (up to a fifth of all) nor more than 5000.
SHARE, LARGEST_SHARE, FEWEST, MOST = 0.1, 0.2, 100, 5000


def hold_out(split: Split, parts: Sequence[str], seed: int) -> tuple[Split, dict[str, Split], list[str]]:
    """Take parts out of a split.

    Which texts are taken depends on their content and the seed, not on their order. Equal texts stay
    together; labels are stratified; a row whose label or tag would be missing in what stays is not taken.

    Args:
        parts: Names of the new splits.

    Returns:
        What stays, the parts by name, and a note a part.

    Raises:
        DataError: The split is too small.
    """
    share = held_out_share(len(split))
    places = _places(split, share, seed)
    stay = [i for i, place in enumerate(places) if place >= len(parts)]
    known = split.take(stay).classes() if stay else set()
    taken: dict[str, list[int]] = {name: [] for name in parts}
    for i, place in enumerate(places):
        if place < len(parts):
            one = split.take([i]).classes()
            (taken[parts[place]] if one <= known else stay).append(i)
    held: dict[str, Split] = {}
    notes = []
    for name, rows in taken.items():
        if not rows or not stay:
            raise DataError(f"{split.name}: {len(split)} texts are too few to make {name} from; give {name}")
        held[name] = split.take(rows, name)
        how = ", stratified by label" if split.labels is not None else ""
        notes.append(
            f"no {name} given: {len(rows)} of {len(split)} texts of {split.name} held out"
            f" by a hash of their content{how} (seed {seed})"
        )
    return split.take(sorted(stay)), held, notes


def held_out_share(count: int) -> float:
    """The share of `count` texts that one part takes."""
    return min(LARGEST_SHARE, max(min(SHARE, MOST / count), FEWEST / count))


def _places(split: Split, share: float, seed: int) -> list[int]:
    """For each row the part it falls into (0, 1, ...); those past the last part stay."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, key in enumerate(split.keys()):
        rows[key].append(i)
    strata: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, same in rows.items():
        strata[min(split.labels[i] for i in same) if split.labels is not None else ""].append(key)
    places = [0] * len(split)
    for keys in strata.values():
        keys.sort(key=lambda key: _hash(key, seed))
        for rank, key in enumerate(keys):
            for i in rows[key]:
                places[i] = int((rank + 0.5) / len(keys) / share)
    return places


def _hash(key: tuple[str, str], seed: int) -> bytes:
    return hashlib.sha256("\0".join((str(seed), *key)).encode()).digest()
