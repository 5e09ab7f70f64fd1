"""Noise inside words: keyboard typos and casing. A word stays one word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from edgekd.data.augment.sentence import Edited, Job, draw, edit, replaced
from edgekd.settings.augment import Casing, CasingStyle, Typos

# Each row of a QWERTY keyboard lies half a key to the right of the one above it.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> Mapping[str, str]:
    touching: dict[str, set[str]] = defaultdict(set)
    keys = {(row, i): key for row, keys in enumerate(_ROWS) for i, key in enumerate(keys)}
    for (row, i), key in keys.items():
        for place in ((row, i + 1), (row + 1, i - 1), (row + 1, i)):
            if place in keys:
                touching[key].add(keys[place])
                touching[keys[place]].add(key)
    return {key: "".join(sorted(others)) for key, others in touching.items()}


QWERTY = _neighbours()
"""The keys that touch each letter's key."""

STYLES: Mapping[CasingStyle, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "title": lambda word: word[:1].upper() + word[1:].lower(),
}


@edit.register
def typos(spec: Typos, job: Job) -> Edited | None:
    """One letter of each drawn word becomes a neighbour on the keyboard, in the letter's own case."""
    letters = {
        i: [at for at, letter in enumerate(job.sentence.words[i]) if letter.lower() in QWERTY]
        for i in job.sentence.editable()
    }
    changes = {}
    for i in draw(job.rng, [i for i, found in letters.items() if len(found) >= spec.min_letters], spec.ratio):
        word, at = job.sentence.words[i], letters[i][job.rng.integers(len(letters[i]))]
        near = QWERTY[word[at].lower()]
        hit = near[job.rng.integers(len(near))]
        changes[i] = word[:at] + (hit.upper() if word[at].isupper() else hit) + word[at + 1 :]
    return replaced(job.sentence, changes)


@edit.register
def casing(spec: Casing, job: Job) -> Edited | None:
    """Every word in one drawn style; None where the text already has all of them."""
    words = job.sentence.words
    made = (replaced(job.sentence, {i: STYLES[style](word) for i, word in enumerate(words)}) for style in spec.styles)
    options = [edited for edited in made if edited is not None]
    return options[job.rng.integers(len(options))] if options else None
