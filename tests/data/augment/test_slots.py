import numpy as np

from edgekd.data.augment.sentence import Job, Sentence
from edgekd.data.augment.slots import slot_swap, slot_values
from edgekd.data.split import Split
from edgekd.runtime.answers import bio_spans
from edgekd.settings.augment import SlotSwap
from tests.data.augment.moved import moved_tags

WORDS = [
    ["fly", "to", "new", "york", "on", "monday"],
    ["rome", "paris", "please"],
    ["to", "rio", "de", "janeiro", "now"],
]
TAGS = [
    ["O", "O", "B-city", "I-city", "O", "B-day"],
    ["B-city", "B-city", "O"],
    ["O", "B-city", "I-city", "I-city", "O"],
]
SPLIT = Split("train", [" ".join(words) for words in WORDS], words=WORDS, tags=TAGS)
VALUES = slot_values(SPLIT)


def swapped(row, seed, ratio=1.0):
    job = Job(Sentence.from_words(WORDS[row], TAGS[row]), np.random.default_rng(seed))
    return slot_swap(SlotSwap(ratio=ratio), VALUES, job)


def test_values_are_distinct_and_by_type():
    cities = [("new", "york"), ("paris",), ("rio", "de", "janeiro"), ("rome",)]
    assert dict(VALUES) == {"city": cities, "day": [("monday",)]}


def test_a_span_gets_another_value_of_its_type_and_tags_stay_legal():
    for row in range(3):
        seen = set()
        for seed in range(40):
            edited = swapped(row, seed)
            tags = moved_tags(TAGS[row], edited.alignment)
            old, new = bio_spans(TAGS[row]), bio_spans(tags)
            assert [kind for kind, *_ in new] == [kind for kind, *_ in old]
            for (kind, start, end), (_, first, last) in zip(old, new, strict=True):
                value = tuple(edited.sentence.words[first:last])
                assert value in VALUES[kind]
                assert (value != tuple(WORDS[row][start:end])) == (kind == "city")
                seen.add(value)
            outside = [w for w, tag in zip(edited.sentence.words, tags, strict=True) if tag == "O"]
            assert outside == [w for w, tag in zip(WORDS[row], TAGS[row], strict=True) if tag == "O"]
        assert seen >= set(VALUES["city"]) - {tuple(WORDS[0][2:4]), tuple(WORDS[2][1:4])}


def test_only_drawn_spans_change():
    changed = [
        sum(a != b for a, b in zip(swapped(1, seed, 1e-9).sentence.words, WORDS[1], strict=False)) for seed in range(9)
    ]
    assert min(changed) >= 1
    assert any(swapped(1, seed, 1e-9).sentence.words[0] == "rome" for seed in range(9))


def test_a_text_without_a_span_that_has_another_value_stays():
    job = Job(Sentence.from_words(["on", "monday"], ["O", "B-day"]), np.random.default_rng(0))
    assert slot_swap(SlotSwap(), VALUES, job) is None
