"""The teacher as it is read here against the same folder in transformers: the same ids, and the same logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from edgekd.data.split import TaskData
from edgekd.errors import UsageError
from edgekd.models.online import OnlineTeacher
from edgekd.models.quiet import quiet_transformers
from edgekd.models.teacher import Teacher
from edgekd.runtime.encodings import Encodings
from edgekd.runtime.tokenise import encode_texts

# So many of the user's texts are compared, the last of them joined until it is cut.
_TEXTS = 64

_BATCH = 8

# Logits differ by less than this, of their largest: the order of additions alone.
_TOLERANCE = 1e-4


def check_reading(teacher: Teacher, data: TaskData, max_length: int, *, trust_remote_code: bool = False) -> None:
    """Make sure that the teacher is what it is in transformers, before anything is trained.

    Args:
        data: The user's; some of its texts are compared, one of them longer than `max_length`.
        max_length: Tokens a text.

    Raises:
        UsageError: Ids or logits differ; the message says where.
    """
    if teacher.head == "joint":
        return  # of our own making: transformers has no class for it
    texts, pairs = _some_texts(data, max_length)
    ours = encode_texts(teacher.tokenizer, texts, pairs, max_length)
    theirs = _their_tokenizer(teacher, trust_remote_code)
    if theirs is not None:
        given = theirs(texts, pairs, truncation=True, max_length=max_length)
        for text, ids, mine in zip(texts, given["input_ids"], _rows(ours, ours.input_ids), strict=True):
            if mine != list(ids):
                raise UsageError(f"{teacher.folder}: transformers reads {text[:60]!r} as {_shown(theirs, ids, mine)}")
        types = given.get("token_type_ids", [[0] * len(ids) for ids in given["input_ids"]])
        if "token_type_ids" in teacher.inputs and list(map(list, types)) != _rows(ours, ours.token_type_ids):
            raise UsageError(f"{teacher.folder}: transformers gives other token types: save the tokenizer again")
    order = np.argsort(ours.lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        _compare_logits(teacher, ours.batch(order[start : start + _BATCH], pad_to_multiple=1))


def _rows(encodings: Encodings, values: NDArray[Any] | None) -> list[list[int]]:
    assert values is not None
    return [part.tolist() for part in np.split(values, encodings.offsets[1:-1])]


def _their_tokenizer(teacher: Teacher, trust_remote_code: bool) -> Any:
    """The tokenizer as transformers makes it; None where it makes none, and tokenizer.json is all there is."""
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(
                teacher.folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except Exception:  # a faulty file may surface as any class
        return None


def _some_texts(data: TaskData, max_length: int) -> tuple[list[str], list[str] | None]:
    """The first texts of the data, and one that is too long, each with its pair where there are pairs."""
    split = next(split for split in data.splits if len(split))
    chosen = np.linspace(0, len(split) - 1, min(_TEXTS - 1, len(split))).astype(int)
    texts = [split.texts[i] for i in chosen]
    long = " ".join(texts)
    while len(long.split()) < 2 * max_length:
        long = f"{long} {long or 'a'}"
    if split.pairs is None:
        return [*texts, long], None
    pairs = [split.pairs[i] for i in chosen]
    return [*texts, long], [*pairs, pairs[0]]


def _shown(tokenizer: Any, theirs: Sequence[int], ours: Sequence[int]) -> str:
    """Where two ways to read a text part, in words."""
    at = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    names = (tokenizer.convert_ids_to_tokens(list(ids[at : at + 3])) for ids in (theirs, ours))
    first, second = (" ".join(map(str, name)) or "nothing" for name in names)
    return (
        f"{first!r} where tokenizer.json gives {second!r} (token {at}): save the tokenizer again with "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
    )


@torch.inference_mode()
def _compare_logits(teacher: Teacher, batch: dict[str, np.ndarray]) -> None:
    """The teacher in our own layers against the model that transformers loaded."""
    if teacher.hosted is None:
        return  # run as transformers loaded it
    inputs = {name: torch.from_numpy(batch[name]) for name in teacher.inputs}
    theirs = teacher.model(**inputs).logits
    ours = OnlineTeacher.of(teacher)(inputs).logits
    assert ours is not None
    if teacher.head == "token":
        present = inputs["attention_mask"].bool()
        theirs, ours = theirs[present], ours[present]
    gap = float((theirs - ours).abs().max())
    if not gap <= _TOLERANCE * max(1.0, float(theirs.abs().max())):
        kind = teacher.model.config.model_type
        spelled = (inputs["input_ids"] == teacher.model.config.pad_token_id) & inputs["attention_mask"].bool()
        if spelled.any():
            raise UsageError(
                f"a text of the data spells the pad token of {teacher.folder}, to which its {kind} gives no position: "
                "take it out of the texts"
            )
        raise UsageError(
            f"{teacher.folder}: its {kind} gives other logits in transformers (by up to {gap:.2g}): its configuration "
            "asks for something that is not computed here; report it with config.json"
        )
