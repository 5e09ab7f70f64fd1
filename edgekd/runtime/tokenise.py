"""Texts to token ids. The same code trains and serves; it imports only numpy and tokenizers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Encoding, Tokenizer

from edgekd.errors import UsageError
from edgekd.reading import MOST_BYTES
from edgekd.runtime.encodings import Encodings, Ints, ragged_offsets
from edgekd.runtime.words import Span, joined_spans

PAD_TOKENS = ("[PAD]", "<pad>", "<|pad|>", "<PAD>", "<|endoftext|>")
CHUNK = 4096
# A text with so many characters for each token that is kept is read in part: then this many words lie between what is
# kept and the part's open end.
_CHARACTERS, _MARGIN = 8, 4
# What a tokenizer is tried on before it is used: words, a long one, spaces, and a repetition that patterns choke on.
_TRIED = "turn the lights off, please! " * 40 + "a" * 400 + " " * 200 + "ab" * 100
_SECONDS, _MOST_GROWTH = 8.0, 1000.0
# More tokens than any text has: nothing is cut.
_WHOLE = 2**30


class TextSplit(Protocol):
    """What `token_lengths` reads of a split."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts; words of a token task are joined by one space."""

    @property
    def pairs(self) -> Sequence[str] | None:
        """The second texts, if the task takes pairs."""


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load `tokenizer.json`, with the truncation and padding it was saved with switched off.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        UsageError: It is missing, is no tokenizer, or one that never comes to an end.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"{file}: missing; save the fast tokenizer with save_pretrained to get it")
    if file.stat().st_size > MOST_BYTES:
        raise UsageError(f"{file}: larger than {MOST_BYTES / 2**20:,.0f} MiB; is this a tokenizer?")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception for every broken file
        raise UsageError(f"{file}: not a tokenizer of the tokenizers library: {error}") from error
    tokenizer.no_padding()
    _check_bounded(tokenizer, file)
    return cut_at(tokenizer, cut_side(tokenizer))


def _check_bounded(tokenizer: Tokenizer, file: Path) -> None:
    """Refuse a tokenizer that makes far more of a text than there is, or takes for ever over it.

    Nothing can stop it later: it computes outside Python, and max_length cuts what it has made by then.
    """
    growth = _growth(json.loads(tokenizer.normalizer.__getstate__())) if tokenizer.normalizer else 1.0
    if growth > _MOST_GROWTH:
        raise UsageError(f"{file}: its normalizer makes up to {growth:.3g} characters of one; is this a tokenizer?")
    # encode_batch lets other threads run, encode does not.
    trying = threading.Thread(target=tokenizer.encode_batch, args=([_TRIED],), daemon=True)
    trying.start()
    trying.join(_SECONDS)
    if trying.is_alive():
        raise UsageError(f"{file}: it takes more than {_SECONDS:g} s over {len(_TRIED)} characters")


def _growth(normalizer: dict[str, Any]) -> float:
    """Characters that a normalizer makes of one, at most."""
    if normalizer.get("type") == "Sequence":
        return prod(map(_growth, normalizer.get("normalizers", [])))
    if normalizer.get("type") == "Prepend":
        return 1.0 + len(normalizer.get("prepend", ""))
    if normalizer.get("type") != "Replace":
        return 1.0
    content, pattern = len(normalizer.get("content", "")), normalizer.get("pattern", {})
    # A regular expression may match between characters, too.
    return max(1.0, content / max(len(pattern["String"]), 1)) if pattern.get("String") else 1.0 + content


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
