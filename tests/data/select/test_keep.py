import numpy as np
import pytest

from edgekd.data.select import keep
from edgekd.data.select.dedup import signatures
from edgekd.data.select.keep import Best

from .test_dedup import random_texts


def feed(best, texts, scores, chunk):
    for start in range(0, len(texts), chunk):
        best.add(texts[start : start + chunk], start % 3, scores[start : start + chunk])
    return best.result()


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("order", ["rising", "random"])
def test_the_best_of_a_stream(monkeypatch, distinct, order):
    monkeypatch.setattr(keep, "WAITING", 50)
    texts, scores = random_texts(2000), np.random.default_rng(0).random(2000)
    if order == "rising":
        scores.sort()
    kept = feed(Best(30, distinct=distinct), texts, scores, 70)
    top = np.argsort(-scores)[:30]
    assert kept.texts == [texts[i] for i in top]
    assert kept.scores.tolist() == scores[top].tolist()
    assert kept.sources.tolist() == [(i // 70 * 70) % 3 for i in top]


def test_waiting_texts_are_bounded(monkeypatch):
    monkeypatch.setattr(keep, "WAITING", 50)
    best = Best(30, distinct=False)
    for i in range(200):
        best.add([f"t{i} {j}" for j in range(10)], 0, np.arange(10.0) + i)
        assert len(best._texts) < 2 * best._room


def test_near_equal_texts_crowd_nothing_out(monkeypatch):
    monkeypatch.setattr(keep, "WAITING", 50)
    texts = random_texts(60)
    copies = [f"{text}{mark}" for mark in ("", "!", " x", "?") for text in texts]
    scores = np.concatenate([np.linspace(2, 1, 60) + 0.0001 * i for i in range(4)])
    best = Best(40)
    kept = feed(best, copies, scores, 25)
    assert kept.texts == [f"{text}?" for text in texts[:40]]
    assert best.repeated > 100
    assert best.leaks == 0


def test_nothing_of_the_target_or_held_out(monkeypatch):
    monkeypatch.setattr(keep, "WAITING", 5)
    texts = random_texts(20)
    best = Best(50, target=signatures(texts[:4]), held_out=signatures(texts[4:7]))
    kept = feed(best, [text.upper() for text in texts], np.arange(20.0), 6)
    assert kept.texts == [text.upper() for text in texts[:6:-1]]
    assert (best.repeated, best.leaks) == (4, 3)


def test_nothing_given():
    assert Best(3).result().texts == []


def test_texts_that_cannot_be_among_the_best_do_not_wait(monkeypatch):
    monkeypatch.setattr(keep, "WAITING", 50)
    best = Best(30, distinct=False)
    best.add([f"t{i}" for i in range(300)], 0, np.arange(300.0))
    waiting = len(best._texts)
    best.add([f"u{i}" for i in range(100)], 0, np.arange(100.0))
    assert len(best._texts) == waiting
