"""One tag a word, in the labels' own scheme; the metric is span F1 as conlleval and seqeval define it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.runtime.encodings import Encodings
from edgekd.runtime.tags import TagSpan, scheme_of
from edgekd.runtime.tokenise import encode_words
from edgekd.settings.task import OUTSIDE, TaskSpec
from edgekd.tasks.base import TaggingTask, totals


class TokenClassificationTask(TaggingTask):
    """Token classification: one logit row a word, on its first piece."""

    head = "token"
    metric_name = "span F1"

    def __init__(self, spec: TaskSpec, labels: Sequence[str]) -> None:
        super().__init__(spec, labels)
        self.scheme = scheme_of(self.labels)

    def encode(self, tokenizer: Tokenizer, split: Split, max_length: int | None) -> Encodings:
        """See `Task.encode`.

        Raises:
            DataError: The split has texts but no words.
        """
        if split.words is None:
            raise DataError(f"{split.name}: token classification needs the words of each text")
        return encode_words(tokenizer, split.words, max_length)

    def target_rows(self, split: Split, encodings: Encodings) -> NDArray[np.int64]:
        """See `Task.target_rows`; words cut off have no row and so no target."""
        targets = [
            self._id(tags[word], split)
            for tags, words in zip(self.gold(split), _row_words(encodings), strict=True)
            for word in words
        ]
        return np.array(targets, dtype=np.int64)

    def answers(self, decided: NDArray[Any], encodings: Encodings) -> list[list[str]]:
        """See `Task.answers`; a word without a row is "O"."""
        assert encodings.words is not None
        answers, rows = [], encodings.rows
        for i, words in enumerate(_row_words(encodings)):
            tags = [OUTSIDE] * int(encodings.words[i])
            for word, row in zip(words, decided[rows[i] : rows[i + 1]], strict=True):
                tags[word] = self.labels[row]
            answers.append(tags)
        return answers

    def gold(self, split: Split) -> list[list[str]]:
        """See `Task.gold`."""
        if split.tags is None:
            raise DataError(f"{split.name}: it has no tags")
        return split.tags

    def row(self, gold: Sequence[str], predicted: Sequence[str], true: set[TagSpan], found: set[TagSpan]) -> list[int]:
        """Spans found, spans wrongly given and spans missed (tp, fp, fn)."""
        hits = len(true & found)
        return [hits, len(found) - hits, len(true) - hits]

    def score(self, counts: NDArray[Any], times: NDArray[Any] | None = None) -> float:
        """Micro F1 over spans; 0 where there is none, as seqeval has it."""
        hits, wrong, missed = totals(counts, times)
        total = 2 * hits + wrong + missed
        return float(2 * hits / total) if total else 0.0


def _row_words(encodings: Encodings) -> list[list[int]]:
    """The words of each text that have a row."""
    assert encodings.answer_words is not None
    rows, words = encodings.rows, encodings.answer_words.tolist()
    return [words[rows[i] : rows[i + 1]] for i in range(len(encodings))]
