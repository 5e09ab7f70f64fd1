"""Token ids of many texts, and from logits to the rows that answers are read from.

All arrays are ragged: a flat array and the offsets of each text in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import UsageError

Ints = NDArray[Any]

# Logit of a column that a row has no say in: outside of every softmax, and finite in FP16.
MASKED = -10000.0


@dataclass(frozen=True)
class Encodings:
    """Token ids of many texts, and where in their logits the answers are.

    Attributes:
        input_ids: Flat (tokens,) int32, special tokens included, nothing padded.
        offsets: (texts + 1,) int64; text i holds `input_ids[offsets[i]:offsets[i + 1]]`.
        pad_id: Id that fills a batch.
        token_type_ids: Flat (tokens,) int8, or None.
        answer_positions: Token tasks: flat (rows,) int32, position of a word's first piece inside its text.
        answer_words: Token tasks: flat (rows,) int32, index of that word inside its text.
        answer_offsets: Token tasks: (texts + 1,) int64, the rows of each text. None: one row a text.
        words: Token tasks: (texts,) int32, words of each text, those without a row included.
        truncated: Number of texts cut at the maximal length.
    """

    input_ids: Ints
    offsets: Ints
    pad_id: int = 0
    token_type_ids: Ints | None = None
    answer_positions: Ints | None = None
    answer_words: Ints | None = None
    answer_offsets: Ints | None = None
    words: Ints | None = None
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each text, (texts,) int64."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Ints:
        """Offsets of each text's logit rows, (texts + 1,) int64."""
        return np.arange(len(self) + 1) if self.answer_offsets is None else self.answer_offsets

    def batch(self, indices: Sequence[int] | Ints, pad_to_multiple: int = 8) -> dict[str, Ints]:
        """Right-padded model inputs of the named texts.

        Args:
            indices: Texts, in the order of the batch.
            pad_to_multiple: The length is rounded up to a multiple of this.

        Returns:
            `input_ids`, `attention_mask` and, if the tokenizer made them, `token_type_ids`, each
            (batch, length) int64.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[chosen]
        longest = int(lengths.max(initial=1))
        width = -(-longest // pad_to_multiple) * pad_to_multiple
        mask = np.arange(width) < lengths[:, None]
        source = ragged_slots(self.offsets, chosen)
        ids = np.full((len(chosen), width), self.pad_id, dtype=np.int64)
        ids[mask] = self.input_ids[source]
        inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self.token_type_ids is not None:
            types = np.zeros((len(chosen), width), dtype=np.int64)
            types[mask] = self.token_type_ids[source]
            inputs["token_type_ids"] = types
        return inputs

    def take(self, indices: Sequence[int] | Ints) -> Encodings:
        """The named texts alone, in that order; `truncated` keeps counting the whole."""
        chosen = np.asarray(indices, dtype=np.int64)
        tokens = ragged_slots(self.offsets, chosen)
        types = None if self.token_type_ids is None else self.token_type_ids[tokens]
        offsets = ragged_offsets(self.lengths[chosen])
        if self.answer_offsets is None:
            return Encodings(self.input_ids[tokens], offsets, self.pad_id, types, truncated=self.truncated)
        assert self.answer_positions is not None
        assert self.answer_words is not None
        assert self.words is not None
        rows = self.row_slots(chosen)
        return Encodings(
            self.input_ids[tokens],
            offsets,
            self.pad_id,
            types,
            self.answer_positions[rows],
            self.answer_words[rows],
            ragged_offsets(np.diff(self.answer_offsets)[chosen]),
            self.words[chosen],
            self.truncated,
        )

    def with_whole_rows(self) -> Encodings:
        """A row for the whole text before those of its words, at the first token; its word is -1.

        Raises:
            UsageError: A word begins at the first token.
        """
        assert self.answer_positions is not None
        assert self.answer_words is not None
        assert self.answer_offsets is not None
        if (self.answer_positions == 0).any():
            raise UsageError("this tokenizer has no token before the first word, at which a whole text is answered")
        first = self.answer_offsets[:-1]
        return replace(
            self,
            answer_positions=np.insert(self.answer_positions, first, 0),
            answer_words=np.insert(self.answer_words, first, -1),
            answer_offsets=self.answer_offsets + np.arange(len(self.answer_offsets)),
        )

    def row_slots(self, indices: Sequence[int] | Ints) -> Ints:
        """Where the rows of the named texts lie among all rows, (rows,) int64."""
        return ragged_slots(self.rows, np.asarray(indices, dtype=np.int64))

    def row_index(self, indices: Sequence[int] | Ints) -> tuple[Ints, Ints]:
        """Batch index and position of each row of the named texts, to index logits with; two (rows,) int64.

        Raises:
            ValueError: The task has one row a text, so there is nothing to pick.
        """
        if self.answer_positions is None:
            raise ValueError("only the encodings of a token task have positions")
        chosen = np.asarray(indices, dtype=np.int64)
        batch = np.repeat(np.arange(len(chosen)), np.diff(self.rows)[chosen])
        return batch, self.answer_positions[self.row_slots(chosen)].astype(np.int64)

    def rows_of(self, logits: NDArray[Any], indices: Sequence[int] | Ints) -> NDArray[Any]:
        """The logit rows of a batch's texts.

        Args:
            logits: (batch, labels) or (batch, length, labels), as the model gave them.
            indices: The texts of the batch, in its order.

        Returns:
            (rows, labels), text after text.
        """
        if self.answer_positions is None:
            return logits
        return np.asarray(logits[self.row_index(indices)])


def joined_logits(outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """A model's outputs as one: its logits, or those of whole texts and of words side by side.

    Args:
        outputs: (batch, labels) or (batch, length, labels); or (batch, labels) and (batch, length, slots).

    Returns:
        The first alone; or (batch, length, labels + slots), the text's at its first token and the words' at all others,
        `MASKED` where a row is of the other kind.
    """
    if len(outputs) == 1:
        return outputs[0]
    whole, slots = outputs
    joined = np.full((*slots.shape[:2], whole.shape[-1] + slots.shape[-1]), MASKED, dtype=slots.dtype)
    joined[:, 0, : whole.shape[-1]] = whole
    joined[:, 1:, whole.shape[-1] :] = slots[:, 1:]
    return joined


def ragged_offsets(counts: Ints) -> Ints:
    """Offsets (n + 1,) int64 of ragged rows with these counts (n,)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def ragged_slots(offsets: Ints, indices: Ints) -> Ints:
    """Flat positions of the named ragged rows, one row after another, int64."""
    counts = (offsets[1:] - offsets[:-1])[indices]
    shift = offsets[:-1][indices] - (np.cumsum(counts) - counts)
    return np.repeat(shift, counts) + np.arange(int(counts.sum()))
