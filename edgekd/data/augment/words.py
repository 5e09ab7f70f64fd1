"""Random swap and random delete of words (EDA: Wei and Zou, 2019, https://arxiv.org/abs/1901.11196)."""

from __future__ import annotations

from dataclasses import replace

from edgekd.data.augment.sentence import Edited, Job, draw, edit
from edgekd.settings.augment import Delete, Swap


@edit.register
def swap(spec: Swap, job: Job) -> Edited | None:
    """Two words change places, max(1, ratio x words) times; with tags only words tagged O do, so BIO stays legal."""
    places = job.sentence.outside()
    if len(places) < 2:
        return None
    order = list(range(len(job.sentence.words)))
    for _ in range(max(1, int(spec.ratio * len(places)))):
        a, b = job.rng.choice(places, size=2, replace=False)
        order[a], order[b] = order[b], order[a]
    words = [job.sentence.words[i] for i in order]
    if words == job.sentence.words:
        return None
    return Edited(replace(job.sentence, words=words, tags=None), order)


@edit.register
def delete(spec: Delete, job: Job) -> Edited | None:
    """Words left out with the gap before them; with tags only words tagged O. One word always stays."""
    sentence = job.sentence
    dropped = draw(job.rng, sentence.outside(), spec.ratio)
    if dropped and len(dropped) == len(sentence.editable()):
        dropped.pop(job.rng.integers(len(dropped)))
    if not dropped:
        return None
    kept = [i for i in range(len(sentence.words)) if i not in dropped]
    gaps = [sentence.gaps[i] for i in kept]
    gaps[0] = sentence.gaps[0]
    words = [sentence.words[i] for i in kept]
    return Edited(replace(sentence, words=words, gaps=[*gaps, sentence.gaps[-1]], tags=None), kept)
