"""What a bundle's config.json says of how its model is run. Imports the standard library and what reads files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.errors import UsageError
from edgekd.reading import read_json
from edgekd.runtime.words import PLAIN, WordSplit

SCHEMA_VERSION = 1

# What a logit row means, in bundles that do not say so themselves; see `edgekd.settings.task.Output`.
_OUTPUTS = {
    "text-classification": "classes", "multi-label-classification": "flags", "text-regression": "value",
    "token-classification": "classes", "joint-intent-slots": "joint",
}  # fmt: skip
_MOST_LABELS, _LONGEST = 100_000, 65_536


@dataclass(frozen=True)
class BundleConfig:
    """What config.json says of how the model is run.

    Attributes:
        labels: Class names in the order of the logits: those of whole texts, where there are slots beside them.
        task: The task's Hugging Face name.
        output: What a logit row means: "classes", "flags", "value" or "joint".
        pair: Whether it takes pairs of texts.
        max_length: Tokens kept of a text.
        threads: Intra-op threads it was measured with.
        session: onnxruntime options it was measured with.
        slot_labels: Joint tasks: tags in the order of the slots' logits.
        threshold: Multi-label tasks: a label is given where its probability is above this.
        words: Word tasks: how plain text is split into words.
    """

    labels: tuple[str, ...]
    task: str
    output: str
    pair: bool
    max_length: int
    threads: int = 1
    session: dict[str, Any] = field(default_factory=dict)
    threshold: float = 0.5
    slot_labels: tuple[str, ...] = ()
    words: WordSplit = PLAIN

    @property
    def per_word(self) -> bool:
        """Whether words are answered, each text's own among them or not."""
        return self.task == "token-classification" or self.output == "joint"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the logit rows."""
        return self.labels + self.slot_labels


def read_config(file: Path) -> BundleConfig:
    """Read a bundle's config.json.

    Raises:
        UsageError: It is missing, broken, of another version or no bundle's.
    """
    if not file.is_file():
        raise UsageError(f"{file}: missing; is this an edgekd bundle?")
    config = read_json(file, "copy the bundle again")
    own = config.get("edgekd") if isinstance(config, dict) else None
    if not isinstance(own, dict):
        raise UsageError(f"{file}: it has no 'edgekd' key; is this an edgekd bundle?")
    if own.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{file}: schema version {own.get('schema_version')}, but this edgekd reads {SCHEMA_VERSION}:"
            " use the edgekd that wrote the bundle, or write it again"
        )
    try:
        names = config["id2label"]
        missing = [i for i in range(len(names)) if str(i) not in names]
        if missing:
            raise UsageError(f"{file}: id2label has {len(names)} labels but no id {missing[0]}: count them from 0")
        output = own.get("output") or _OUTPUTS.get(own["task"]["name"], "")
        if output not in _OUTPUTS.values():
            raise UsageError(f"{file}: no task {own['task']['name']!r} is known: use the edgekd that wrote the bundle")
        return _checked(file, BundleConfig(
            labels=tuple(names[str(i)] for i in range(len(names))),
            task=own["task"]["name"],
            output=output,
            pair=bool(own["task"].get("pair", False)),
            max_length=int(own["max_length"]),
            threads=int(own.get("threads", 1)),
            session=dict(own.get("session") or {}),
            threshold=float(own["task"].get("threshold", 0.5)),
            slot_labels=tuple(own.get("slot_labels", ())),
            words=_words(own.get("words", {})),
        ))  # fmt: skip
    except KeyError as error:
        raise UsageError(f"{file}: key {error} is missing; write the bundle again") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError(f"{file}: broken ({error}); write the bundle again") from error


def _checked(file: Path, config: BundleConfig) -> BundleConfig:
    """The configuration, once its numbers are such as a bundle can have."""
    if not all(isinstance(label, str) for label in config.columns) or not 1 <= len(config.columns) <= _MOST_LABELS:
        raise UsageError(f"{file}: labels are 1 to {_MOST_LABELS:,} strings; write the bundle again")
    if not 1 <= config.max_length <= _LONGEST:
        raise UsageError(f"{file}: max_length is {config.max_length}, not 1 to {_LONGEST:,}; write the bundle again")
    if not isinstance(config.task, str) or (config.slot_labels and config.output != "joint"):
        raise UsageError(f"{file}: the task's name is a string, and slots are for joint tasks; write the bundle again")
    _check_session(file, config.session)
    if config.threads < 1 or not 0 <= config.threshold <= 1:
        raise UsageError(f"{file}: threads are 1 or more, a threshold 0 to 1; write the bundle again")
    return config


def _check_session(file: Path, session: dict[str, Any]) -> None:
    providers, settings = session.get("providers") or (), session.get("provider_options") or {}
    if not isinstance(providers, list | tuple) or not all(isinstance(name, str) for name in providers):
        raise UsageError(f"{file}: session.providers is a list of names; write the bundle again")
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise UsageError(f"{file}: session.provider_options is an object; write the bundle again")


def _words(content: dict[str, Any]) -> WordSplit:
    return WordSplit(**{**content, "whole": tuple(content.get("whole", ()))})
