"""An intent a text and a tag a word, by one encoder; the metric is 1 - the semantic error rate.

The logit rows of a text are its intent's, then its words'; the columns are the intents, then the tags. What a row has
no say in is `MASKED`.
"""

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


class JointIntentSlotsTask(TaggingTask):
    """Joint intent classification and slot filling; an answer is the intent, then a tag a word."""

    head = "joint"
    metric_name = "semantic accuracy"

    def __init__(self, spec: TaskSpec, labels: Sequence[str]) -> None:
        super().__init__(spec, labels)
        self.intents = self.labels.index(OUTSIDE)
        self.scheme = scheme_of(self.labels[self.intents :])

    @property
    def sizes(self) -> tuple[int, ...]:
        """See `Task.sizes`: intents and tags."""
        return self.intents, len(self.labels) - self.intents

    def encode(self, tokenizer: Tokenizer, split: Split, max_length: int | None) -> Encodings:
        """See `Task.encode`.

        Raises:
            DataError: The split has texts but no words.
        """
        if split.words is None:
            raise DataError(f"{split.name}: slot filling needs the words of each text")
        return encode_words(tokenizer, split.words, max_length).with_whole_rows()

    def target_rows(self, split: Split, encodings: Encodings) -> NDArray[np.int64]:
        """See `Task.target_rows`; words cut off have no row and so no target."""
        assert encodings.answer_words is not None
        rows, words = encodings.rows, encodings.answer_words
        # A text's row has word -1: the intent, which its answer begins with.
        targets = [
            self._id(answer[word + 1], split)
            for i, answer in enumerate(self.gold(split))
            for word in words[rows[i] : rows[i + 1]]
        ]
        return np.array(targets, dtype=np.int64)

    def answers(self, decided: NDArray[Any], encodings: Encodings) -> list[list[str]]:
        """See `Task.answers`; a word without a row is "O"."""
        assert encodings.words is not None
        assert encodings.answer_words is not None
        answers, rows = [], encodings.rows
        for i, count in enumerate(encodings.words.tolist()):
            answer = [OUTSIDE] * (1 + count)
            for row in range(rows[i], rows[i + 1]):
                answer[encodings.answer_words[row] + 1] = self.labels[decided[row]]
            answers.append(answer)
        return answers

    def gold(self, split: Split) -> list[list[str]]:
        """See `Task.gold`."""
        if split.labels is None or split.tags is None:
            raise DataError(f"{split.name}: it has no labels, or no tags")
        return [[label, *tags] for label, tags in zip(split.labels, split.tags, strict=True)]

    def row(self, gold: Sequence[str], predicted: Sequence[str], true: set[TagSpan], found: set[TagSpan]) -> list[int]:
        """A right intent, spans found, wrongly given and missed, errors, and the text itself.

        A wrong span in place of a missed one is one error, a substitution; a wrong intent is one more.
        """
        hits, same = len(true & found), gold[0] == predicted[0]
        wrong, missed = len(found) - hits, len(true) - hits
        return [int(same), hits, wrong, missed, max(wrong, missed) + (not same), 1]

    def score(self, counts: NDArray[Any], times: NDArray[Any] | None = None) -> float:
        """1 - errors / (true spans + texts): the intent counts as one more slot (Alexa's SemER)."""
        _, hits, _, missed, errors, texts = totals(counts, times)
        return 1.0 - float(errors / (hits + missed + texts)) if texts else 0.0

    def parts(self, counts: NDArray[Any]) -> dict[str, float]:
        """See `Task.parts`."""
        same, hits, wrong, missed, _, texts = totals(counts, None)
        spans = 2 * hits + wrong + missed
        return {
            "intent accuracy": float(same / texts) if texts else 0.0,
            "slot F1": float(2 * hits / spans) if spans else 0.0,
            "semantic error rate": 1.0 - self.score(counts),
        }
