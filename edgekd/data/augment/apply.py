"""New texts from a split's texts, made offline, each from an original and never from a text that was made."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgekd.data.augment import characters, words  # noqa: F401 - their policies register
from edgekd.data.augment.sentence import Edited, Job, Policy, Sentence, edit
from edgekd.data.augment.slots import slot_swap, slot_values, split_scheme
from edgekd.data.split import Split
from edgekd.errors import UsageError
from edgekd.progress import Progress
from edgekd.settings.augment import (
    AugmentationSpec,
    BackTranslation,
    Delete,
    MaskFill,
    SlotSwap,
    Swap,
)

# New texts asked of a policy at a time: bounds what a masked LM's candidates take.
_JOBS = 4096


@dataclass(frozen=True)
class Augmented:
    """New texts and where they come from.

    Attributes:
        split: The new texts, without labels or tags: the teacher labels them.
        parents: Each one's row in the original split, (texts,) int64.
        policies: The policy that made each.
        seed: The seed that all were made with.
        alignment: For token tasks, for each word its place in the original: the teacher's tags can be compared
            by it. A place taken twice in a row is a span that grew.
        notes: What was made and what was dropped, a line a policy.
    """

    split: Split
    parents: NDArray[np.int64]
    policies: list[str]
    seed: int
    alignment: list[list[int]] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.split)

    def keep(self, mask: NDArray[np.bool_], why: str) -> Augmented:
        """Only the texts where the mask is True, (texts,); `why` ends the note on the others."""
        kept = np.flatnonzero(mask)
        alignment = None if self.alignment is None else [self.alignment[i] for i in kept]
        note = f"{len(self) - len(kept)} of {len(self)} augmented texts left out: {why}"
        return Augmented(
            self.split.take(kept), self.parents[kept], [self.policies[i] for i in kept], self.seed, alignment,
            (*self.notes, note),
        )  # fmt: skip


def augment(
    split: Split,
    specs: Sequence[AugmentationSpec],
    *,
    seed: int,
    copies: int = 1,
    allow_pairs: bool = False,
    exclude: Iterable[Split] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> Augmented:
    """Make new texts with each policy from each text of a split.

    A text depends on its original, the policy, the copy's number and the seed, not on the other rows; a text from
    back_translation on its batch too. Dropped are texts that, white space aside, are an original, one made before
    or one of `exclude`.

    Args:
        split: The originals; token tasks need its words, and some policies its tags.
        specs: The policies.
        copies: New texts to ask for from each text by each policy that does not say itself.
        allow_pairs: Edit pairs too: one of the two texts, drawn for each copy. Word edits can change how the two
            relate, and soft labels do not always repair it.
        exclude: Splits whose texts must not come out, such as validation and test.
        device: Where models run, "cpu" or "cuda".

    Raises:
        UsageError: A policy cannot work on such a split, or its model's folder is faulty.
        UnavailableError: A model needs a library that is not installed.
    """
    for spec in specs:
        _require_fit(spec, split, allow_pairs)
    seen = {_plain(key) for part in (split, *exclude) for key in part.keys()}  # noqa: SIM118 - a method of Split
    rows, notes = _Rows(), []
    for spec in specs:
        asked = spec.copies or copies
        policy, tally = _policy(spec, split, device), Counter[str]()
        size = max(1, _JOBS // asked)
        with (progress or Progress()).bar(f"augment: {spec.name}", len(split)) as bar:
            for start in range(0, len(split), size):
                stop = min(start + size, len(split))
                for parent, side, edited in _edits(policy, spec.name, split, range(start, stop), asked, seed):
                    tally[rows.add(split, parent, side, edited, spec.name, seen)] += 1
                bar.update(stop)
        notes.append(
            f"{spec.name}: {tally['made']} new texts from {len(split)} x {asked}; "
            f"{tally['unchanged']} could not be changed, {tally['known']} were known already"
        )
    return rows.join(split, seed, tuple(notes))


def _require_fit(spec: AugmentationSpec, split: Split, allow_pairs: bool) -> None:
    """Refuse what would break pairs or the alignment of words and tags."""
    if split.pairs is not None and not allow_pairs:
        raise UsageError(
            f"augmentation {spec.name}: {split.name} holds pairs, and an edit can change how the two texts relate; "
            "allow pairs if you want it nevertheless"
        )
    if isinstance(spec, BackTranslation) and split.words is not None:
        raise UsageError(
            f"augmentation {spec.name}: a translation's words have no tags, so token tasks cannot use it; leave it out"
        )
    if isinstance(spec, SlotSwap) and (split.words is None or split.tags is None):
        raise UsageError(f"augmentation {spec.name}: {split.name} has no tagged spans to swap; leave it out")
    if isinstance(spec, Swap | Delete) and split.words is not None and split.tags is None:
        raise UsageError(
            f"augmentation {spec.name}: only words tagged O may move, and {split.name} has no tags; "
            "leave it out or give tagged texts"
        )


def _policy(spec: AugmentationSpec, split: Split, device: str) -> Policy:
    """The policy of a spec; torch is imported only where a model runs."""
    match spec:
        case MaskFill():
            from edgekd.data.augment.masked import MaskFiller

            return MaskFiller(spec, device)
        case BackTranslation():
            from edgekd.data.augment.translation import BackTranslator

            return BackTranslator.load(spec, device)
        case SlotSwap():
            return _each(partial(slot_swap, spec, slot_values(split), scheme=split_scheme(split)))
        case _:
            return _each(partial(edit, spec))


def _each(one: Callable[[Job], Edited | None]) -> Policy:
    return lambda jobs: [one(job) for job in jobs]


def _edits(
    policy: Policy, name: str, split: Split, parents: Iterable[int], copies: int, seed: int
) -> Iterator[tuple[int, int, Edited | None]]:
    """(parent, which of a pair's texts, what was made of it), by parent, then copy."""
    places: list[tuple[int, int]] = []
    jobs: list[Job] = []
    for parent in parents:
        sentences = _sentences(split, parent)
        row = split.texts[parent], "" if split.pairs is None else split.pairs[parent]
        for copy in range(copies):
            rng = _rng(seed, name, copy, *row)
            side = int(rng.integers(2)) if len(sentences) > 1 else 0
            places.append((parent, side))
            jobs.append(Job(sentences[side], rng))
    for (parent, side), edited in zip(places, policy(jobs), strict=True):
        yield parent, side, edited


def _sentences(split: Split, row: int) -> list[Sentence]:
    """A row's texts: one, or two of a pair."""
    if split.words is not None:
        return [Sentence.from_words(split.words[row], split.tags[row] if split.tags is not None else None)]
    texts = [split.texts[row]] if split.pairs is None else [split.texts[row], split.pairs[row]]
    return [Sentence.from_text(text) for text in texts]


def _rng(seed: int, name: str, copy: int, text: str, second: str) -> np.random.Generator:
    digest = hashlib.sha256(json.dumps([seed, name, copy, text, second]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _plain(key: tuple[str, str]) -> tuple[str, str]:
    """A row's texts without regard to the kind and length of white space."""
    return " ".join(key[0].split()), " ".join(key[1].split())


@dataclass
class _Rows:
    """Collects what comes out."""

    texts: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    alignment: list[list[int]] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)

    def add(
        self, split: Split, parent: int, side: int, edited: Edited | None, name: str, seen: set[tuple[str, str]]
    ) -> str:
        """Take a row that is new; say what became of it: "made", "unchanged" or "known"."""
        if edited is None:
            return "unchanged"
        new = edited.sentence.text
        second = "" if split.pairs is None else split.pairs[parent]
        row = (new, second) if side == 0 else (split.texts[parent], new)
        if _plain(row) in seen:
            return "known"
        seen.add(_plain(row))
        self.texts.append(row[0])
        self.pairs.append(row[1])
        self.words.append(edited.sentence.words)
        self.alignment.append(edited.alignment)
        self.parents.append(parent)
        self.policies.append(name)
        return "made"

    def join(self, split: Split, seed: int, notes: tuple[str, ...]) -> Augmented:
        token = split.words is not None
        new = Split("augmented", self.texts, None if split.pairs is None else self.pairs, self.words if token else None)
        parents = np.array(self.parents, dtype=np.int64)
        return Augmented(new, parents, self.policies, seed, self.alignment if token else None, notes)
