"""A bundle's model: texts in, answers out. Imports only numpy, tokenizers and, when loading, onnxruntime."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgekd.errors import UnavailableError, UsageError, first_line, require
from edgekd.onnx_session import cpus_of_process, session_options
from edgekd.reading import checksum, inside, read_json
from edgekd.runtime.answers import classify, classify_all, softmax, text_spans
from edgekd.runtime.config import BundleConfig, read_config
from edgekd.runtime.encodings import Encodings, joined_logits
from edgekd.runtime.tags import OUTSIDE, scheme_of, spans_of
from edgekd.runtime.tokenise import encode_raw, encode_texts, load_tokenizer
from edgekd.runtime.words import Span, joined_spans

CPU = "CPUExecutionProvider"

SURROGATES = re.compile("[\ud800-\udfff]")

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_TRY_SECONDS = 8.0

Text = str | Sequence[str]


# What a model was loaded by: folder, threads, provider.
_Origin = tuple[Path, int, str | None]


class Model:
    """A loaded bundle. Safe to share between threads, except for the count `truncated`.

    Attributes:
        config: How it is run.
        provider: The execution provider that runs it.
        threads: Intra-op threads.
        truncated: Texts cut at the maximal length so far.
    """

    def __init__(
        self, config: BundleConfig, tokenizer: Tokenizer, session: Any, threads: int, origin: _Origin | None = None
    ) -> None:
        self.config = config
        self._origin = origin
        self.provider: str = session.get_providers()[0]
        self.truncated = 0
        self._tokenizer = tokenizer
        self._session = session
        self._run_options: Any = None
        self._inputs = [model_input.name for model_input in session.get_inputs()]
        self.threads, self._parallel = threads, threads > 1
        self._scheme = scheme_of(config.slot_labels or config.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process, the model is loaded there again, from the same folder."""
        if self._origin is None:
            raise TypeError("this model was not loaded from a folder: load it where it is needed")
        return _load_again, self._origin

    def predict(
        self, texts: str | Sequence[Text], *, batch_size: int = 32, all_scores: bool = False, workers: int = 1
    ) -> list[dict[str, Any]]:
        """Answer texts.

        Args:
            texts: One text or several; for a pair task a sequence of (text, text). Tasks on words also take a text as
                its words, a sequence of strings: then these are the words, and the text is their join by one space.
            batch_size: Texts run at once, those of like length together.
            all_scores: Tasks with labels for whole texts: add `"scores"`, every label's probability.
            workers: Batches run at the same time, each with the threads that the model was loaded with.

        Returns:
            One answer a text, in order. Text classification: `{"label", "score"}`. Multi-label classification:
            `{"labels": [{"label", "score"}]}`, the likeliest first. Regression: `{"value"}`. Token classification:
            `{"spans": [{"label", "start", "end", "text", "score"}]}`, start and end in characters, and of a text given
            as words also `"words"`, the first and the one after the last. Joint intents and slots:
            `{"label", "score", "spans"}`.

        Raises:
            UsageError: A text is not what the task takes, the message names its index; or a number is below 1.
        """
        return self.timed_predict(texts, batch_size=batch_size, all_scores=all_scores, workers=workers)[0]

    def timed_predict(
        self, texts: str | Sequence[Text], *, batch_size: int = 32, all_scores: bool = False, workers: int = 1
    ) -> tuple[list[dict[str, Any]], float, float, float]:
        """`predict`, and the seconds spent on tokenising, on the model and on post-processing."""
        start = time.perf_counter()
        given = self.check(texts)
        encodings, read, words = self._encode(given)
        tokenised = time.perf_counter()
        rows = self.run(encodings, batch_size, workers)
        modelled = time.perf_counter()
        if not np.isfinite(rows).all():
            raise UsageError("the model's logits are not numbers: make the bundle again")
        answers = self._answers(read, encodings, words, rows, all_scores)
        for answer, text in zip(answers, given, strict=True):
            if self.config.per_word and not isinstance(text, str):
                _name_words(answer["spans"], joined_spans(text))
        return answers, tokenised - start, modelled - tokenised, time.perf_counter() - modelled

    def logits(self, texts: str | Sequence[Text], *, batch_size: int = 32) -> NDArray[Any]:
        """Logit rows (rows, labels), text after text: one a text, or one a word that the model has seen.

        In a joint task a text's rows are its own, then its words', and the columns the intents, then the tags; those
        that a row has no say in are -10000.
        """
        return self.run(self._encode(self.check(texts))[0], batch_size)

    def check(self, texts: str | Sequence[Text]) -> list[str | tuple[str, ...]]:
        """The texts, pairs of them, or their words, once each is known to be strings that can be encoded.

        Raises:
            UsageError: One is not what the task takes; the message names its index.
        """
        if isinstance(texts, dict) or not hasattr(texts, "__iter__"):
            raise UsageError(f"texts: a text or a list of texts, not {type(texts).__name__}")
        checked: list[str | tuple[str, ...]] = []
        for i, text in enumerate([texts] if isinstance(texts, str) else list(texts)):
            if isinstance(text, str) and not self.config.pair:
                checked.append(_clean(text))
                continue
            parts = [text] if isinstance(text, str) else list(text) if isinstance(text, (list, tuple)) else []
            if not all(isinstance(part, str) for part in parts) or not (parts or self._takes_words(text)):
                raise UsageError(f"text {i}: not a string but {type(text).__name__}")
            if not self._takes_words(text) and (len(parts) != 2 or not self.config.pair):
                raise UsageError(
                    f"text {i}: this model takes {'pairs of texts' if self.config.pair else 'single texts'}"
                )
            checked.append(tuple(map(_clean, parts)))
        return checked

    def _takes_words(self, text: object) -> bool:
        return self.config.per_word and isinstance(text, (list, tuple))

    def _encode(self, given: list[str | tuple[str, ...]]) -> tuple[Encodings, list[str], list[list[Span]] | None]:
        """The encodings, the texts that were read, and where their words are, if words are answered."""
        length, words = self.config.max_length, None
        if self.config.per_word:
            texts = [text if isinstance(text, str) else " ".join(text) for text in given]
            encodings, words = encode_raw(self._tokenizer, texts, self._split(given), length, parallel=self._parallel)
            encodings = encodings.with_whole_rows() if self.config.output == "joint" else encodings
        else:
            texts = [text if isinstance(text, str) else text[0] for text in given]
            pairs = [text[1] for text in given] if self.config.pair else None
            encodings = encode_texts(self._tokenizer, texts, pairs, length, parallel=self._parallel)
        self.truncated += encodings.truncated
        return encodings, texts, words

    def _split(self, given: list[str | tuple[str, ...]]) -> Callable[[int, str], list[Span]]:
        """The words of each text: those that it was given as, or as the data's words tell."""

        def split(i: int, part: str) -> list[Span]:
            text = given[i]
            return self.config.words.spans(part) if isinstance(text, str) else joined_spans(text)

        return split

    def try_out(self, file: Path) -> None:
        """Answer a text, within a time, so that a graph which cannot is known before it is needed.

        Raises:
            UsageError: It fails, or takes for ever.
        """
        from onnxruntime import RunOptions

        self._run_options = RunOptions()
        ending = threading.Timer(_TRY_SECONDS, setattr, (self._run_options, "terminate", True))
        ending.daemon = True
        ending.start()
        try:
            self.logits([("on", "off")] if self.config.pair else ["on"])
        except Exception as error:  # onnxruntime's errors share no class of their own
            late = f" within {_TRY_SECONDS:g} s" if self._run_options.terminate else ""
            raise UsageError(f"{file}: it does not answer a text{late}: {first_line(error)[:300]}") from error
        finally:
            ending.cancel()
            self._run_options, self.truncated = None, 0

    def run(self, encodings: Encodings, batch_size: int, workers: int = 1) -> NDArray[Any]:
        """Logit rows (rows, labels) of encoded texts, text after text; those of like length run together."""
        for name, number in (("batch_size", batch_size), ("workers", workers)):
            if number < 1:
                raise UsageError(f"{name} {number}: at least 1")
        rows = np.zeros((int(encodings.rows[-1]), len(self.config.columns)), dtype=np.float32)
        order = np.argsort(encodings.lengths, kind="stable")

        def run_batch(start: int) -> None:
            chosen = order[start : start + batch_size]
            batch = encodings.batch(chosen, pad_to_multiple=1)
            feed = {name: batch[name] if name in batch else np.zeros_like(batch["input_ids"]) for name in self._inputs}
            try:
                outputs = self._session.run(None, feed, self._run_options)
            except Exception as error:  # onnxruntime's errors share no class of their own
                reason = str(error).partition("\n")[0][-160:]
                raise UsageError(f"onnxruntime cannot run the model on these texts: {reason}") from error
            logits = joined_logits(outputs)
            rows[encodings.row_slots(chosen)] = encodings.rows_of(logits, chosen)

        starts = range(0, len(order), batch_size)
        if workers == 1 or len(starts) < 2:
            for start in starts:
                run_batch(start)
            return rows
        # Here, since a process that answers single texts need not wait for the import.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(workers) as pool:
            # The longest first: begun last, one of them would run on when the other workers are done.
            list(pool.map(run_batch, reversed(starts)))
        return rows

    def _answers(
        self,
        texts: list[str],
        encodings: Encodings,
        words: list[list[Span]] | None,
        rows: NDArray[Any],
        all_scores: bool,
    ) -> list[dict[str, Any]]:
        if self.config.output == "value":
            return [{"value": float(row[0])} for row in rows]
        if self.config.output == "flags":
            return classify_all(rows, self.config.labels, self.config.threshold, all_scores)
        if words is None:
            return classify(rows, self.config.labels, all_scores)
        return self._word_answers(texts, encodings, words, rows, all_scores)

    def _word_answers(
        self,
        texts: list[str],
        encodings: Encodings,
        words: list[list[Span]],
        rows: NDArray[Any],
        all_scores: bool,
    ) -> list[dict[str, Any]]:
        """Spans, and before them the answer of the whole text where there is one."""
        assert encodings.answer_words is not None
        whole = encodings.answer_words == -1
        labels = self.config.labels
        first = (
            classify(rows[whole, : len(labels)], labels, all_scores) if self.config.slot_labels else [{}] * len(texts)
        )
        scores = softmax(rows)
        best, offsets = scores.argmax(axis=-1), encodings.rows
        answers: list[dict[str, Any]] = []
        for i, text in enumerate(texts):
            tags, sure = [OUTSIDE] * len(words[i]), [1.0] * len(words[i])
            for row in range(offsets[i], offsets[i + 1]):
                word = int(encodings.answer_words[row])
                if word >= 0:
                    tags[word], sure[word] = self.config.columns[best[row]], float(scores[row, best[row]])
            found = spans_of(tags, self._scheme)
            answers.append(first[i] | {"spans": text_spans(text, words[i], found, sure)})
        return answers


def load(folder: str | Path, *, threads: int | None = None, provider: str | None = None) -> Model:
    """Load a bundle.

    Args:
        folder: The bundle: config.json, tokenizer.json and model.onnx.
        threads: Intra-op threads, lowered to the CPUs of this process; None takes what the bundle was measured with.
        provider: An onnxruntime execution provider; None takes what the bundle was measured with.

    Raises:
        UsageError: A file is missing, broken, of another version, or not the one that verdict.json was written for.
        UnavailableError: onnxruntime, or the provider, is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the bundle's")
    _check_whole(folder)
    config = read_config(inside(folder, "config.json"))
    tokenizer = load_tokenizer(inside(folder, "tokenizer.json"))
    threads = config.threads if threads is None else threads
    if threads < 1:
        raise UsageError(f"threads is {threads}: give 1 or more")
    # More would only wait for each other; thousands stop a machine.
    threads = min(threads, cpus_of_process())
    session = _open(inside(folder, "model.onnx"), config, threads, provider)
    _check_graph(session, config, folder / "model.onnx")
    model = Model(config, tokenizer, session, threads, (folder.resolve(), threads, provider))
    model.try_out(folder / "model.onnx")
    return model


def _check_graph(session: Any, config: BundleConfig, file: Path) -> None:
    """Refuse a graph whose inputs and outputs are not those of the task."""
    taken = {tensor.name: tensor for tensor in session.get_inputs()}
    if "input_ids" not in taken or not set(taken) <= _INPUTS:
        raise UsageError(f"{file}: it takes {', '.join(taken)[:200]}; a bundle's takes tokens")
    for name, tensor in taken.items():
        if tensor.type not in ("tensor(int64)", "tensor(int32)") or len(tensor.shape) != 2:
            raise UsageError(
                f"{file}: {name} is {tensor.type} of {len(tensor.shape)} axes, not integers (texts, tokens)"
            )
        if any(isinstance(size, int) for size in tensor.shape):
            raise UsageError(f"{file}: {name} takes {tensor.shape} alone, not any number of texts and tokens")
    # Rows of texts, of words, or of both.
    ranks = (2, 3) if config.output == "joint" else (3,) if config.per_word else (2,)
    given = session.get_outputs()
    if tuple(len(tensor.shape or ()) for tensor in given) != ranks:
        raise UsageError(f"{file}: its outputs are not those of {config.task}")
    columns = (config.labels, config.slot_labels) if len(given) > 1 else (config.columns,)
    for tensor, names in zip(given, columns, strict=True):
        if tensor.type not in ("tensor(float)", "tensor(float16)"):
            raise UsageError(f"{file}: {tensor.name} is {tensor.type}, and logits are floats")
        if isinstance(tensor.shape[-1], int) and tensor.shape[-1] != len(names):
            raise UsageError(
                f"{file.parent}: model.onnx gives {tensor.shape[-1]} logits, config.json names {len(names)} labels"
            )


def _check_whole(folder: Path) -> None:
    """Refuse files that are not those which the bundle's verdict was written for, where it lies beside them."""
    if not (folder / "verdict.json").exists():
        return
    verdict = read_json(inside(folder, "verdict.json"), "copy the bundle again")
    sums = verdict.get("files") if isinstance(verdict, dict) else None
    if not isinstance(sums, dict):
        raise UsageError(f"{folder / 'verdict.json'}: it has no checksums; copy the bundle again")
    for name in ("config.json", "tokenizer.json", "model.onnx"):
        path = inside(folder, name)
        if name not in sums or not path.is_file():
            continue
        if checksum(path) != sums[name]:
            raise UsageError(
                f"{path}: not the file that verdict.json was written for: copy the bundle again; or, if you changed it,"
                " remove verdict.json, which says nothing of it any more"
            )


def _load_again(folder: Path, threads: int, provider: str | None) -> Model:
    return load(folder, threads=threads, provider=provider)


def _open(file: Path, config: BundleConfig, threads: int, provider: str | None) -> Any:
    """An onnxruntime session with the options that the bundle was measured with."""
    if not file.is_file():
        raise UsageError(f"{file}: missing; is this an edgekd bundle?")
    runtime = require("onnxruntime", "runtime", "run a bundle")
    wanted = (provider,) if provider else tuple(config.session.get("providers") or (CPU,))
    found = runtime.get_available_providers()
    if wanted[0] not in found:
        raise UnavailableError(
            f"{file.parent}: {wanted[0]} is not in this onnxruntime (it has {', '.join(found)}):"
            f' install it, or load with provider="{CPU}"'
        )
    providers = [name for name in dict.fromkeys((*wanted, CPU)) if name in found]
    settings: list[dict[str, str]] = [{} for _ in providers]
    if provider is None:
        settings[0] = dict(config.session.get("provider_options") or {})
    options = session_options(config.session, threads)
    try:
        session = runtime.InferenceSession(str(file), options, providers=providers, provider_options=settings)
    except Exception as error:  # onnxruntime's errors share no class of their own
        raise UsageError(f"{file}: onnxruntime cannot load it: {_why(error, runtime.__version__)}") from error
    if session.get_providers()[0] != wanted[0]:
        raise UnavailableError(
            f"{file}: onnxruntime fell back from {wanted[0]} to {session.get_providers()[0]}:"
            " check the driver and its libraries"
        )
    return session


def _why(error: Exception, version: str) -> str:
    """The reason that onnxruntime gives, without its source code, and what helps."""
    reason = str(error).partition("\n")[0].rpartition(" failed:")[2]
    reason = re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z])", "", reason).rstrip(".")
    if re.search(r"[Oo]pset|IR version|No Op registered", reason):
        return f"{reason}; the graph is newer than this onnxruntime {version}: install a newer one"
    return f"{reason}; copy the bundle again"


def _name_words(found: list[dict[str, Any]], words: Sequence[Span]) -> None:
    """Add to each span of characters which words it takes."""
    first = {start: i for i, (start, _) in reversed(list(enumerate(words)))}
    last = {end: i for i, (_, end) in enumerate(words)}
    for span in found:
        span["words"] = [first[span["start"]], last[span["end"]] + 1]


def _clean(text: str) -> str:
    """Half surrogate pairs, which no tokenizer can encode, become the replacement character."""
    return text if text.isascii() else SURROGATES.sub("\ufffd", text)
