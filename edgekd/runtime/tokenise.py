"""Texts to token ids, and logits to the rows that answers are read from. The same code trains and serves.

Imports only numpy and tokenizers. All arrays are ragged: a flat array and the offsets of each text in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from edgekd.errors import UsageError
from edgekd.runtime.words import Span, joined_spans

Ints = NDArray[Any]

PAD_TOKENS = ("[PAD]", "<pad>", "<|pad|>", "<PAD>", "<|endoftext|>")
CHUNK = 4096
# A text with so many characters for each token that is kept is read in part: then this many words lie between what is
# kept and the part's open end.
_CHARACTERS, _MARGIN = 8, 4
# More tokens than any text has: nothing is cut.
_WHOLE = 2**30
# Logit of a column that a row has no say in: outside of every softmax, and finite in FP16.
MASKED = -10000.0


class TextSplit(Protocol):
    """What `token_lengths` reads of a split."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts; words of a token task are joined by one space."""

    @property
    def pairs(self) -> Sequence[str] | None:
        """The second texts, if the task takes pairs."""


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


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load `tokenizer.json`, with the truncation and padding it was saved with switched off.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        UsageError: It is missing, or is no tokenizer.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"{file}: missing; save the fast tokenizer with save_pretrained to get it")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception for every broken file
        raise UsageError(f"{file}: not a tokenizer of the tokenizers library: {error}") from error
    tokenizer.no_padding()
    return cut_at(tokenizer, cut_side(tokenizer))


def cut_at(tokenizer: Tokenizer, side: str) -> Tokenizer:
    """The tokenizer, told on which side long texts are cut: "right", or "left", which keeps a text's end.

    The side is kept in the tokenizer itself, and in its tokenizer.json.
    """
    if side == "left":
        tokenizer.enable_truncation(_WHOLE, direction="left")
    else:
        tokenizer.no_truncation()
    return tokenizer


def cut_side(tokenizer: Tokenizer) -> str:
    """On which side the tokenizer cuts long texts: see `cut_at`."""
    return "right" if tokenizer.truncation is None else str(tokenizer.truncation["direction"])


def pad_id(tokenizer: Tokenizer) -> int:
    """The padding token's id: the tokenizer's own setting, else the usual names, else 0 (it is masked)."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    ids = (tokenizer.token_to_id(name) for name in PAD_TOKENS)
    return next((known for known in ids if known is not None), 0)


def encode_texts(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    max_length: int | None = None,
    *,
    parallel: bool = True,
) -> Encodings:
    """Encode texts, or pairs of texts, for a sequence task: one logit row each.

    Args:
        tokenizer: Any tokenizer; only its truncation and padding are changed.
        texts: First texts.
        pairs: Second texts, as many, or None.
        max_length: Tokens kept, special ones included; the longer text of a pair is cut first. None: all.
        parallel: Use the tokenizers library's thread pool.

    Raises:
        UsageError: `max_length` leaves no room for text.
    """
    parts = _Parts(pad_id(tokenizer))
    for encoding in _encode(tokenizer, texts, pairs, max_length, parallel=parallel):
        parts.add(encoding)
    return parts.join(with_rows=False)


def encode_words(tokenizer: Tokenizer, words: Sequence[Sequence[str]], max_length: int | None = None) -> Encodings:
    """Encode texts given as words for a token task: a row on the first piece of each word.

    The words are joined by one space and found again by their characters, so that training on words and
    serving on plain text give the same ids with every tokenizer: byte-level ones spell a word by the space
    before it.
    A word without a piece (odd unicode, or cut off) has no row.
    """
    texts, spans = [" ".join(text) for text in words], [joined_spans(text) for text in words]
    return encode_raw(tokenizer, texts, lambda i, _: spans[i], max_length)[0]


def encode_raw(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    split: Callable[[int, str], list[Span]],
    max_length: int | None = None,
    *,
    parallel: bool = True,
) -> tuple[Encodings, list[list[Span]]]:
    """Encode plain text for a token task.

    Args:
        split: The words of a text, by its index, or of its beginning up to white space.

    Returns:
        The encodings, and the words of each text as far as it is read.
    """
    parts, spans = _Parts(pad_id(tokenizer)), []
    encodings = _encode(tokenizer, texts, None, max_length, offsets=True, parallel=parallel)
    for i, (encoding, text) in enumerate(zip(encodings, texts, strict=True)):
        spans.append(split(i, _as_read(encoding, text)))
        parts.add(encoding)
        parts.add_rows(encoding, text, spans[-1])
    return parts.join(with_rows=True), spans


def _as_read(encoding: Encoding, text: str) -> str:
    """The text up to the white space after the last token: words that are cut off need not be looked for."""
    last = max((end for _, end in encoding.offsets), default=0)
    end = next((i for i in range(last, len(text)) if text[i].isspace()), len(text))
    return text[:end]


def token_lengths(tokenizer: Tokenizer, split: TextSplit) -> Ints:
    """Tokens of each text of a split, special ones included and nothing cut, (texts,) int64."""
    counts = (len(encoding) for encoding in _encode(tokenizer, split.texts, split.pairs, None))
    return np.fromiter(counts, dtype=np.int64, count=len(split.texts))


def _encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int | None,
    *,
    offsets: bool = False,
    parallel: bool = True,
) -> Iterator[Encoding]:
    """Encodings one by one, made in chunks so that a large set never holds all of them."""
    _set_limits(tokenizer, max_length, pair=pairs is not None)
    if pairs is not None and max_length is not None:
        texts, pairs = _parts_of_pairs(tokenizer, texts, pairs, max_length)
    # Left out: pairs, and the offsets of a text's end.
    whole = max_length is None or pairs is not None or (offsets and cut_side(tokenizer) == "left")
    longest = None if whole or max_length is None else _CHARACTERS * max_length
    if len(texts) == 1 or not parallel:
        seconds: Sequence[str | None] = [None] * len(texts) if pairs is None else pairs
        for text, second in zip(texts, seconds, strict=True):
            long = longest is not None and len(text) > longest
            yield _encode_part(tokenizer, text, longest or 0) if long else tokenizer.encode(text, second)
        return
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    for start in range(0, len(texts), CHUNK):
        chunk: list[Any] = list(texts[start : start + CHUNK])
        if pairs is not None:
            chunk = list(zip(chunk, pairs[start : start + CHUNK], strict=True))
        if longest is None or max(map(len, chunk)) <= longest:
            yield from encode(chunk)
            continue
        short = iter(encode([text for text in chunk if len(text) <= longest]))
        yield from (next(short) if len(text) <= longest else _encode_part(tokenizer, text, longest) for text in chunk)


def _set_limits(tokenizer: Tokenizer, max_length: int | None, pair: bool) -> None:
    """Set truncation and padding only where they differ: another thread may be using the tokenizer."""
    if tokenizer.padding is not None:
        tokenizer.no_padding()
    current = tokenizer.truncation
    side = cut_side(tokenizer)
    if max_length is None:
        if current is not None and current["max_length"] != _WHOLE:
            cut_at(tokenizer, side)
        return
    special = tokenizer.num_special_tokens_to_add(pair)
    if max_length <= special:
        raise UsageError(f"max_length {max_length} leaves no room for text beside {special} special tokens")
    wanted: dict[str, Any] = {
        "max_length": max_length,
        "stride": 0,
        "strategy": "longest_first",
        "direction": side,
    }
    if current is None or any(current[key] != value for key, value in wanted.items()):
        tokenizer.enable_truncation(**wanted)


def _parts_of_pairs(
    tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str], max_length: int
) -> tuple[Sequence[str], Sequence[str]]:
    """Pairs whose long texts are parts of themselves, cut to the same tokens.

    The longer text is cut first, so what is kept depends on each text's tokens up to `max_length` alone; but where both
    have more and one token is left over, the longer one gets it, and both stay whole.
    """
    size = _CHARACTERS * max_length
    if max(map(len, (*texts, *pairs)), default=0) <= size:
        return texts, pairs
    odd = (max_length - tokenizer.num_special_tokens_to_add(True)) % 2
    firsts, seconds = list(texts), list(pairs)
    for i, both in enumerate(zip(texts, pairs, strict=True)):
        parts = [_part_of(tokenizer, text, size) if len(text) > size else text for text in both]
        if not (odd and parts[0] != both[0] and parts[1] != both[1]):
            firsts[i], seconds[i] = parts
    _set_limits(tokenizer, max_length, pair=True)
    return firsts, seconds


def _part_of(tokenizer: Tokenizer, text: str, size: int) -> str:
    """A part of a long text whose tokens are the text's own, more of them than are ever kept, but at its open end."""
    end, most = cut_side(tokenizer) == "left", size // _CHARACTERS
    while size < len(text):
        part = text[-size:] if end else text[:size]
        cut_at(tokenizer, "left" if end else "right")
        found = tokenizer.encode(part, add_special_tokens=False)
        words = [word for word in found.word_ids if word is not None]
        if words:
            near = min(words) + _MARGIN if end else max(words) - _MARGIN
            if sum(word > near if end else word < near for word in words) > most:
                return part
        size *= 4
    return text


def _encode_part(tokenizer: Tokenizer, text: str, size: int) -> Encoding:
    """A long text, of which no more is tokenised than it takes to know what is kept of it.

    Tokenizers split a text into words, and each of these by itself, so a part gives the text's own tokens but for those
    at its open end. Where what is kept comes near that end, a larger part is tried.

    Args:
        size: Characters to begin with.
    """
    end = cut_side(tokenizer) == "left"
    while size < len(text):
        found = tokenizer.encode(text[-size:] if end else text[:size])
        kept = [word for word in found.word_ids if word is not None]
        rest = [word for piece in found.overflowing for word in piece.word_ids if word is not None]
        if kept and rest and (min(kept) - min(rest) if end else max(rest) - max(kept)) > _MARGIN:
            return found
        size *= 4
    return tokenizer.encode(text)


class _Parts:
    """Collects encodings into flat arrays."""

    def __init__(self, pad: int) -> None:
        self.pad = pad
        self.ids: list[Ints] = []
        self.types: list[Ints] = []
        self.positions: list[int] = []
        self.answer_words: list[int] = []
        self.rows: list[int] = []
        self.words: list[int] = []
        self.truncated = 0

    def add(self, encoding: Encoding) -> None:
        self.ids.append(np.array(encoding.ids, dtype=np.int32))
        self.types.append(np.array(encoding.type_ids, dtype=np.int8))
        self.truncated += bool(encoding.overflowing)

    def add_rows(self, encoding: Encoding, text: str, spans: Sequence[Span]) -> None:
        """A row for each word with a piece; pieces and words both come in the text's order.

        The space before a word may be a piece of its own, and is then the word's first, as teachers learnt it.
        """
        pieces = [
            (position, start, end)
            for position, ((start, end), special) in enumerate(
                zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
            )
            if not special and end > start
        ]
        before, piece = len(self.positions), 0
        for word, (start, end) in enumerate(spans):
            low = start - (start > 0 and text[start - 1].isspace())
            while piece < len(pieces) and pieces[piece][2] <= low:
                piece += 1
            if start < end and piece < len(pieces) and pieces[piece][1] < end:
                self.positions.append(pieces[piece][0])
                self.answer_words.append(word)
        self.rows.append(len(self.positions) - before)
        self.words.append(len(spans))

    def join(self, with_rows: bool) -> Encodings:
        lengths = np.array([len(ids) for ids in self.ids], dtype=np.int64)
        flat_ids = np.concatenate([np.zeros(0, np.int32), *self.ids])
        flat_types = np.concatenate([np.zeros(0, np.int8), *self.types])
        offsets = ragged_offsets(lengths)
        if not with_rows:
            return Encodings(flat_ids, offsets, self.pad, flat_types, truncated=self.truncated)
        return Encodings(
            flat_ids,
            offsets,
            self.pad,
            flat_types,
            np.array(self.positions, dtype=np.int32),
            np.array(self.answer_words, dtype=np.int32),
            ragged_offsets(np.array(self.rows, dtype=np.int64)),
            np.array(self.words, dtype=np.int32),
            self.truncated,
        )
