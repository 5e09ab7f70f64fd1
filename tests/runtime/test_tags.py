"""Tags of every scheme against seqeval: BIO and IOB1 in its default mode, BILOU and IOBES in their strict one."""

import random

import pytest

from edgekd.runtime.tags import begins_with_i, repair_bio, scheme_of, spans_of, unknown_scheme
from edgekd.settings.task import TokenClassification
from edgekd.tasks.build import build_task

KINDS = ("x", "y-z")
PREFIXES = {"BIO": "BI", "IOB1": "BI", "BILOU": "BILU", "IOBES": "BIES"}


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        ("O B-x I-x", "BIO"),
        ("O B-x", "BIO"),
        ("O B-x I-x L-x U-x", "BILOU"),
        ("O U-x", "BILOU"),
        ("O B-x I-x E-x S-x", "IOBES"),
        ("O S-x S-y", "IOBES"),
        ("O I-x I-y", "IO"),
        ("O person city", "IO"),
        ("O e-mail S-Bahn person", "IO"),
        ("O", "IO"),
    ],
)
def test_the_labels_tell_the_scheme(labels, scheme):
    assert scheme_of(labels.split()) == scheme


@pytest.mark.parametrize(
    ("scheme", "tags", "spans"),
    [
        ("IO", "x x O y", [("x", 0, 2), ("y", 3, 4)]),
        ("IO", "x y y", [("x", 0, 1), ("y", 1, 3)]),
        ("IO", "e-mail O e-mail", [("e-mail", 0, 1), ("e-mail", 2, 3)]),
        ("IO", "I-x I-x O I-y", [("x", 0, 2), ("y", 3, 4)]),
        ("BIO", "I-x I-x B-x I-y", [("x", 0, 2), ("x", 2, 3), ("y", 3, 4)]),
        ("BILOU", "B-x I-x L-x U-y O U-y", [("x", 0, 3), ("y", 3, 4), ("y", 5, 6)]),
        ("BILOU", "B-x I-x O U-y I-x L-x", [("y", 3, 4)]),
        ("IOBES", "B-x E-x S-y B-x S-x E-x", [("x", 0, 2), ("y", 2, 3), ("x", 4, 5)]),
        ("IOBES", "B-x E-y B-x B-x E-x", [("x", 3, 5)]),
    ],
)
def test_spans(scheme, tags, spans):
    assert spans_of(tags.split(), scheme) == spans


def drawn(scheme, rng):
    """A few texts of any tags, and of tags that mostly follow the scheme."""
    tags = ["O", *(f"{prefix}-{kind}" for prefix in PREFIXES[scheme] for kind in KINDS)]
    texts = []
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.5:
            texts.append([rng.choice(tags) for _ in range(rng.randint(1, 9))])
            continue
        text = []
        for _ in range(rng.randint(1, 4)):
            kind, size = rng.choice(KINDS), rng.randint(1, 3)
            first, last, single = {"BILOU": "BLU", "IOBES": "BES", "BIO": "BIB", "IOB1": "III"}[scheme]
            inner = ["I"] * (size - 2)
            text += ["O"] * rng.randint(0, 2)
            text += [f"{p}-{kind}" for p in ([single] if size == 1 else [first, *inner, last])]
        texts.append(text)
    return texts


@pytest.mark.parametrize("scheme", PREFIXES)
def test_span_f1_is_seqevals(scheme):
    metrics = pytest.importorskip("seqeval.metrics")
    schemes = pytest.importorskip("seqeval.scheme")
    mode = {} if scheme in ("BIO", "IOB1") else {"mode": "strict", "scheme": getattr(schemes, scheme)}
    labels = ["O", *(f"{prefix}-{kind}" for prefix in PREFIXES[scheme] for kind in KINDS)]
    task, rng = build_task(TokenClassification(), labels), random.Random(0)
    for _ in range(3000):
        gold = drawn(scheme, rng)
        said = [[tag if rng.random() < 0.7 else rng.choice(labels) for tag in text] for text in gold]
        expected = metrics.f1_score(gold, said, zero_division=0, **mode)
        assert task.metric(gold, said) == pytest.approx(float(expected), abs=1e-12), (gold, said)


def test_repair_keeps_the_spans():
    tags = ["I-x", "I-x", "B-y", "I-x", "O", "I-y"]
    assert repair_bio(tags) == ["B-x", "I-x", "B-y", "B-x", "O", "B-y"]
    assert spans_of(repair_bio(tags), "BIO") == spans_of(tags, "BIO")


@pytest.mark.parametrize(
    ("texts", "iob1"),
    [
        (["I-x I-x B-x O I-y"], True),
        (["I-x O"], True),
        (["I-x O", "B-x I-x"], False),
        (["O B-x"], False),
        (["I-y B-x"], False),
    ],
)
def test_tags_whose_spans_begin_with_i_are_told(texts, iob1):
    assert begins_with_i([text.split() for text in texts]) is iob1


@pytest.mark.parametrize("odd", ["X", "[PAD]", "[CLS]"])
def test_a_label_without_a_type_beside_prefixes_marks_no_span(odd):
    labels = ["O", odd, "B-x", "I-x"]
    assert scheme_of(labels) == "BIO"
    assert spans_of(["B-x", "I-x", odd, "B-x"], "BIO") == [("x", 0, 2), ("x", 3, 4)]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("O B_PER I_PER", "'B_PER' carry a mark before their type"),
        ("O b-per i-per", "'b-per' carry a mark before their type"),
        ("O PER-B PER-I", "'PER-B' carry a mark after their type"),
        ("O B-x M-x E-x W-x", "'B-x' carry a mark before"),
        ("O e-mail s-bahn", ""),
        ("O person city", ""),
        ("O I-x I-y", ""),
        ("O B-x I-x", ""),
        ("O", ""),
    ],
)
def test_tags_in_another_writing_are_not_taken_for_types(labels, said):
    found = unknown_scheme(labels.split())
    assert said in found
    assert bool(said) == bool(found)
