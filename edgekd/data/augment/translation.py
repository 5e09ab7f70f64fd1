"""Back-translation with two Marian models, sampled (UDA: Xie et al., 2020, https://arxiv.org/abs/1904.12848)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import MarianMTModel

from edgekd.data.augment.load import load_model
from edgekd.data.augment.sentence import Edited, Job, Sentence
from edgekd.models.quiet import quiet_transformers
from edgekd.settings.augment import BackTranslation

_BATCH = 32
# A translation may be so many times as long as the text, and so many tokens more.
_LONGER, _MORE = 2, 16


class Translator(Protocol):
    """Translates one way."""

    def translate(self, texts: Sequence[str], seed: int) -> list[str]:
        """A sampled translation of each text, in order; "" where the text cannot be translated."""


class MarianTranslator:
    """One Marian model; two texts of a batch draw from one stream, so a batch is what a seed decides."""

    def __init__(self, folder: str, flag: str, device: str, *, top_p: float, temperature: float) -> None:
        self.model, self.tokenizer = load_model(MarianMTModel, folder, flag, device)
        self.limit = int(min(self.model.config.max_position_embeddings, self.tokenizer.model_max_length))
        self.top_p, self.temperature = top_p, temperature

    @torch.inference_mode()
    def translate(self, texts: Sequence[str], seed: int) -> list[str]:
        """See `Translator`; a text longer than the model takes cannot be translated."""
        lengths = [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]
        fitting = [i for i, (text, size) in enumerate(zip(texts, lengths, strict=True)) if text and size <= self.limit]
        translations = [""] * len(texts)
        if not fitting:
            return translations
        inputs = self.tokenizer([texts[i] for i in fitting], padding=True, return_tensors="pt").to(self.model.device)
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with quiet_transformers(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            made = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                do_sample=True,
                num_beams=1,
                top_k=0,
                top_p=self.top_p,
                temperature=self.temperature,
                max_new_tokens=min(self.limit - 1, _LONGER * max(lengths[i] for i in fitting) + _MORE),
            )
        for i, text in zip(fitting, self.tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
            translations[i] = text.strip()
        return translations


class BackTranslator:
    """There and back again, in batches of texts of like length."""

    def __init__(self, there: Translator, back: Translator, language: str = "") -> None:
        self.there, self.back = there, back
        self.prefix = f"{language} " if language else ""

    @staticmethod
    def load(spec: BackTranslation, device: str) -> BackTranslator:
        """The two models of a spec.

        Raises:
            UsageError: A folder does not hold a Marian model.
        """
        there, back = (
            MarianTranslator(folder, f"back_translation.{flag}", device, top_p=spec.top_p, temperature=spec.temperature)
            for folder, flag in ((spec.there, "there"), (spec.back, "back"))
        )
        return BackTranslator(there, back, spec.language)

    def __call__(self, jobs: Sequence[Job]) -> list[Edited | None]:
        """See `Policy`; words of a translation have no counterpart in the original."""
        made: list[Edited | None] = [None] * len(jobs)
        order = sorted(range(len(jobs)), key=lambda i: len(jobs[i].sentence.text))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            seeds = jobs[batch[0]].rng.integers(2**31, size=2).tolist()
            abroad = self.there.translate([self.prefix + jobs[i].sentence.text for i in batch], seeds[0])
            for i, text in zip(batch, self.back.translate(abroad, seeds[1]), strict=True):
                if text.split() and text.split() != jobs[i].sentence.text.split():
                    made[i] = Edited(Sentence.from_text(text), [])
        return made
