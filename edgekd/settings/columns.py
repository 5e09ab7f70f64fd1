"""Which columns of the user's data mean what. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from edgekd.settings.base import Spec

# Tried in this order, without regard to case.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "text": (
        *("text", "sentence", "sentence1", "premise", "question1", "text1", "query", "utterance", "question"),
        *("content", "review", "message", "document"),
    ),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "question2", "text2"),
    "label": ("label", "labels", "intent", "category", "class", "sentiment", "target"),
    "value": ("score", "similarity_score", "similarity", "rating", "value"),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "slot_tags", "bio_tags"),
}


class Columns(Spec):
    """Names of the columns, and how strictly they are read; those left out are found by their `USUAL_NAMES`.

    Attributes:
        text: The text.
        text_pair: The second text of a pair.
        label: The label, the labels of a multi-label task, or the value of a regression.
        tokens: The words of a text.
        tags: A tag a word: BIO, IOB1, BILOU, IOBES, or types without prefixes.
        strict: Refuse illegal sequences of BIO tags, which are otherwise repaired and counted.
        drop_labels: Take an unlabeled file that has labels, and leave them out; it is otherwise refused, since it may
            be a copy of what is to be judged on.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    tokens: str | None = None
    tags: str | None = None
    strict: bool = False
    drop_labels: bool = False

    def find(self, role: str, names: Iterable[str]) -> str | None:
        """The column of a role: the one named here if it is there, else the first usual name that is.

        Args:
            role: One of this class's fields, or "value": what a regression's label is called where it is no "label".
            names: The columns that there are.
        """
        known = {name.strip().casefold(): name for name in names}
        named: str | None = getattr(self, "label" if role == "value" else role)
        wanted = USUAL_NAMES[role] if named is None else (named.strip().casefold(),)
        return next((known[name] for name in wanted if name in known), None)
