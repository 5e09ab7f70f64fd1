"""Mask and fill: TinyBERT's augmentation (Jiao et al., 2020, https://arxiv.org/abs/1909.10351, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from edgekd.data.augment.load import load_model
from edgekd.data.augment.sentence import Edited, Job, Sentence, draw, replaced
from edgekd.errors import UsageError
from edgekd.settings.augment import MaskFill

# A text, and the characters of the word that is masked in it.
_Place = tuple[str, int, int]

# Logits held at a time (256 MiB), texts a batch, and texts tokenised at a time.
_LOGITS, _BATCH, _TOKENISED = 2**26, 64, 4096
# Likelier words that may turn out to be the original in another case.
_SPARE = 4
# How tokenizers mark a piece: begun by a space (byte-level, SentencePiece), or inside a word (WordPiece).
_BEGINS, _INSIDE = ("Ġ", "▁"), "##"

# Function words carry the syntax: TinyBERT leaves them alone too.
_FUNCTION_WORDS = """
    a about after all am an and any are as at be because been before being but by can could did do does doing
    down during each few for from further had has have having he her here hers him his how i if in into is it its
    just me more most my no nor not now of off on once only or other our out over own same she should so some such
    than that the their them then there these they this those through to too under until up very was we were what
    when where which while who whom why will with would you your
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())


class MaskFiller:
    """Draws words, masks each alone with the whole text as second segment, and draws from the likeliest words."""

    def __init__(self, spec: MaskFill, device: str) -> None:
        flag = "mask_fill.masked_lm"
        self.spec = spec
        self.model, self.tokenizer = load_model(AutoModelForMaskedLM, spec.masked_lm, flag, device)
        if self.tokenizer.mask_token is None or self.tokenizer.pad_token is None or not self.tokenizer.is_fast:
            raise UsageError(f"{flag}: {spec.masked_lm}: its tokenizer must be a fast one with a mask and a pad token")
        output = self.model.get_output_embeddings()
        self.output = output if isinstance(output, nn.Linear) else None
        self.limit = _positions(self.model, self.tokenizer)
        self.words = _whole_words(self.tokenizer, self.model.config.vocab_size)
        if not self.words:
            raise UsageError(f"{flag}: {spec.masked_lm}: its vocabulary holds no whole word")
        self.allowed = torch.tensor(sorted(self.words), device=self.model.device)

    def __call__(self, jobs: Sequence[Job]) -> list[Edited | None]:
        """See `Policy`."""
        chosen = [draw(job.rng, self._places(job.sentence), self.spec.ratio) for job in jobs]
        wanted: dict[_Place, list[str]] = {}
        for job, words in zip(jobs, chosen, strict=True):
            text, spans = job.sentence.text, job.sentence.spans
            wanted.update({(text, *spans[i]): [] for i in words})
        self._fill(wanted)
        made = []
        for job, words in zip(jobs, chosen, strict=True):
            text, spans, changes = job.sentence.text, job.sentence.spans, {}
            for i in words:
                if options := wanted[(text, *spans[i])]:
                    changes[i] = like(options[job.rng.integers(len(options))], job.sentence.words[i])
            made.append(replaced(job.sentence, changes))
        return made

    def _places(self, sentence: Sentence) -> list[int]:
        places = sentence.outside() if self.spec.keep_slots else sentence.editable()
        if self.spec.stop_words == "none":
            return places
        return [i for i in places if sentence.words[i].lower() not in STOP_WORDS]

    def _fill(self, wanted: dict[_Place, list[str]]) -> None:
        """Put the likeliest other words into each place that fits the model, likeliest first."""
        places = list(wanted)
        for start in range(0, len(places), _TOKENISED):
            chunk = places[start : start + _TOKENISED]
            inputs, masks = self._encode(chunk)
            fitting = sorted((i for i in range(len(chunk)) if masks[i] >= 0), key=lambda i: len(inputs[i]["input_ids"]))
            held = self.model.config.vocab_size if self.output is None else 1
            for batch in _batches(fitting, [len(one["input_ids"]) for one in inputs], held):
                rows = self._likeliest([inputs[i] for i in batch], [masks[i] for i in batch])
                for i, ids in zip(batch, rows, strict=True):
                    text, first, last = chunk[i]
                    own = text[first:last].casefold()
                    others = [word for word in (self.words[j] for j in ids.tolist()) if word.casefold() != own]
                    wanted[chunk[i]] = others[: self.spec.top_k]

    def _encode(self, places: Sequence[_Place]) -> tuple[list[dict[str, list[int]]], list[int]]:
        """The masked text, then the whole one, cut to the model's length; and where the mask is, -1 if cut off."""
        mask = self.tokenizer.mask_token
        encoded = self.tokenizer(
            [text[:start] + mask + text[end:] for text, start, end in places],
            [text for text, _, _ in places],
            return_offsets_mapping=True,
            verbose=False,
        )
        offsets = encoded.pop("offset_mapping")
        inputs = [{name: rows[i][: self.limit] for name, rows in encoded.items()} for i in range(len(places))]
        masks = []
        for one, spans, (_, start, _) in zip(inputs, offsets, places, strict=True):
            # The user's own text may spell the mask token: the place tells which is ours.
            found = (
                at
                for at, token in enumerate(one["input_ids"])
                if token == self.tokenizer.mask_token_id and spans[at][1] == start + len(mask)
            )
            masks.append(next(found, -1))
        return inputs, masks

    @torch.inference_mode()
    def _likeliest(self, inputs: Sequence[dict[str, list[int]]], masks: Sequence[int]) -> np.ndarray:
        """Ids of the likeliest whole words at each mask, (batch, k), likeliest first."""
        padded = self.tokenizer.pad(list(inputs), return_tensors="pt", verbose=False).to(self.model.device)
        at = torch.arange(len(masks), device=self.model.device), torch.tensor(masks, device=self.model.device)
        with only_at(self.output, at):
            logits = self.model(**padded).logits
        logits = (logits if self.output is not None else logits[at])[:, self.allowed]
        best = logits.topk(min(self.spec.top_k + _SPARE, len(self.allowed))).indices
        ids: np.ndarray = self.allowed[best].cpu().numpy()
        return ids


def like(word: str, model: str) -> str:
    """A word in the casing of another: "lamp" like "Light" is "Lamp"."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


@contextmanager
def only_at(output: nn.Linear | None, at: tuple[Tensor, ...]) -> Iterator[None]:
    """Inside the block, compute logits (batch, words) of the tokens `at` alone: those of all cost half the time."""
    if output is None:
        yield
        return
    handle = output.register_forward_pre_hook(lambda _, inputs: (inputs[0][at],))
    try:
        yield
    finally:
        handle.remove()


def _batches(order: Sequence[int], lengths: Sequence[int], held: int) -> Iterator[list[int]]:
    """Batches of texts of like length whose logits fit, `held` a token; `order` is by length."""
    batch: list[int] = []
    for i in order:
        if len(batch) == _BATCH or (len(batch) + 1) * lengths[i] * held > _LOGITS:
            if batch:
                yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _positions(model: nn.Module, tokenizer: Any) -> int:
    """Tokens that the model takes."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 512]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # Families that number positions from the padding row leave the rows up to it unused.
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return int(min(limits))


def _whole_words(tokenizer: Any, rows: int) -> dict[int, str]:
    """Ids among the first `rows` that are a whole word of letters, and the word."""
    vocabulary = {token: i for token, i in tokenizer.get_vocab().items() if i < rows}
    counts = {mark: sum(token.startswith(mark) for token in vocabulary) for mark in (*_BEGINS, _INSIDE)}
    mark = max(counts, key=lambda mark: counts[mark])
    begins = counts[mark] > 0 and mark in _BEGINS
    special, words = set(tokenizer.all_special_ids), {}
    for token, i in vocabulary.items():
        if i in special or (begins and not token.startswith(mark)):
            continue
        bare = token[len(mark) :] if begins else token
        # Byte-level pieces spell letters beyond ASCII by other characters.
        word = bare if bare.isascii() or mark != "Ġ" else tokenizer.decode([i]).strip()
        if word.isalpha():
            words[i] = word
    return words
