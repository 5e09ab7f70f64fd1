import numpy as np
import pytest

from edgekd.runtime.answers import bio_spans, classify, classify_all, softmax, text_spans


def test_softmax_is_safe_against_overflow():
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4], [0.0, np.log(3.0)]])), [[0.5, 0.5], [0.25, 0.75]])


def test_classify_gives_the_likeliest_label():
    logits = np.log(np.array([[0.2, 0.8], [0.9, 0.1]]))
    assert [answer["label"] for answer in classify(logits, ["a", "b"])] == ["b", "a"]
    answer = classify(logits, ["a", "b"], all_scores=True)[0]
    assert answer["score"] == pytest.approx(0.8)
    assert answer["scores"] == pytest.approx({"a": 0.2, "b": 0.8})


def test_classify_all_gives_what_is_above_the_threshold_the_likeliest_first():
    logits = np.log(np.array([[0.6 / 0.4, 0.1 / 0.9, 0.9 / 0.1], [0.4 / 0.6, 0.3 / 0.7, 0.2 / 0.8]]))
    both, nothing = classify_all(logits, ["a", "b", "c"], 0.5)
    assert both == {
        "labels": [{"label": "c", "score": pytest.approx(0.9)}, {"label": "a", "score": pytest.approx(0.6)}]
    }
    assert nothing == {"labels": []}
    lower = classify_all(logits, ["a", "b", "c"], 0.35, all_scores=True)[1]
    assert [given["label"] for given in lower["labels"]] == ["a"]
    assert lower["scores"] == pytest.approx({"a": 0.4, "b": 0.3, "c": 0.2})
    assert classify_all(np.array([[-1e4, 1e4]]), ["a", "b"], 0.5)[0]["labels"] == [{"label": "b", "score": 1.0}]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-x I-x O", [("x", 0, 2)]),
        ("B-x B-x", [("x", 0, 1), ("x", 1, 2)]),
        ("O I-x I-x", [("x", 1, 3)]),
        ("B-x I-y I-y", [("x", 0, 1), ("y", 1, 3)]),
        ("I-x B-x I-x", [("x", 0, 1), ("x", 1, 3)]),
        ("I-x O I-x", [("x", 0, 1), ("x", 2, 3)]),
        ("B-a-b I-a-b", [("a-b", 0, 2)]),
        ("", []),
    ],
)
def test_spans_as_conlleval_reads_them(tags, spans):
    assert bio_spans(tags.split()) == spans


def test_text_spans_have_characters_and_mean_scores():
    text = "fly to  New York."
    words = [(0, 3), (4, 6), (8, 11), (12, 16), (16, 17)]
    tags = ["O", "O", "B-city", "I-city", "O"]
    (span,) = text_spans(text, words, bio_spans(tags), [1.0, 1.0, 0.9, 0.5, 1.0])
    assert span == {"label": "city", "start": 8, "end": 16, "text": "New York", "score": pytest.approx(0.7)}
