import numpy as np
import pytest

from edgekd.data.select.dedup import deduplicate, near_equal, normalise, signatures


def grams(text):
    padded = f" {normalise(text)} ".ljust(4)
    return {padded[i : i + 4] for i in range(len(padded) - 3)}


def jaccard(a, b):
    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def random_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    words = np.array(["".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(1000)])
    return [" ".join(rng.choice(words, rng.integers(6, 20))) for _ in range(count)]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Hello  World!", "hello world"),
        ("\uff28ello\u00a0world", "hello world"),
        ("“So?”", "so"),
        ("Straße", "STRASSE"),
    ],
)
def test_equal_after_normalising(a, b):
    assert normalise(a) == normalise(b)


@pytest.mark.parametrize(("a", "b"), [("3.5 mg", "35 mg"), ("c++", "c"), ("good 👍", "good 👎"), ("!!!", "?")])
def test_marks_with_a_meaning_stay(a, b):
    assert normalise(a) != normalise(b)


def test_signatures_estimate_the_jaccard_similarity():
    rng = np.random.default_rng(1)
    texts = random_texts(1500)
    others = [" ".join(np.delete(text.split(), rng.integers(0, 6, rng.integers(0, 4)))) for text in texts]
    exact = np.array([jaccard(*pair) for pair in zip(texts, others, strict=True)])
    estimate = (signatures(texts) == signatures(others)).mean(axis=1)
    assert exact.std() > 0.1
    assert abs((estimate - exact).mean()) < 0.005
    assert (estimate - exact).std() < 1.1 * np.sqrt(exact * (1 - exact) / 64).mean() + 0.01


def test_a_signature_does_not_depend_on_the_texts_around():
    texts = [*random_texts(1100), "x", "今日は", "👍"]
    alone = np.concatenate([signatures([text]) for text in texts[-5:]])
    assert np.array_equal(signatures(texts)[-5:], alone)


def test_near_equal_texts_are_found_as_by_comparing_all_pairs():
    rng = np.random.default_rng(2)
    texts = random_texts(150)
    for text in texts[:100]:
        letters = list(text)
        for _ in range(rng.integers(1, 8)):
            letters[rng.integers(len(letters))] = "q"
        texts.append("".join(letters))
    signed = signatures(texts)
    kept: list[int] = []
    expected = []
    for i, row in enumerate(signed):
        like = [j for j in kept if (signed[j] == row).mean() >= 0.8]
        expected.append(like[0] if like else -1)
        if not like:
            kept.append(i)
    assert 20 < sum(e >= 0 for e in expected) < 90
    assert near_equal(signed).tolist() == expected


def test_the_first_stays_and_reasons_are_counted():
    base = "please move four hundred dollars from my savings to my checking account"
    texts = [
        base,
        "an entirely different sentence about the weather in spring",
        base.upper() + "!",
        base.replace("please", "pleas"),
        "what is the capital city of the country called new zealand",
        "What is the capital city of the country called New Zealand",
        "Is this seat taken?",
    ]
    held_out = ["is this seat taken", "what is the capital city of the county called new zealand"]
    found = deduplicate(texts, held_out)
    assert found.kept.tolist() == [0, 1]
    assert (found.repeated, found.near, found.leaks) == (2, 1, 2)
    assert ("Is this seat taken?", "is this seat taken") in found.examples
    assert (texts[3], base) in found.examples


def test_another_slot_value_is_another_text():
    texts = ["set an alarm for six", "set an alarm for nine", "wake me at six", "yes", "yes please", "no"]
    assert deduplicate(texts).kept.tolist() == list(range(6))


def test_a_repeat_of_a_leak_is_a_leak_and_nothing_may_be_left():
    found = deduplicate(["a b c", "A b c", "a b c."], ["a b c"])
    assert len(found.kept) == 0
    assert (found.repeated, found.near, found.leaks) == (0, 0, 3)
    assert len(deduplicate([]).kept) == 0


def test_held_out_texts_stay_though_they_are_equal_to_each_other():
    found = deduplicate(["the cat sat down", "something else"], ["the cat sat down", "The cat sat down!"])
    assert found.kept.tolist() == [1]


def test_fixed_rows_stay():
    signed = signatures(["the cat sat down", "The cat sat down!", "the cat sat down."])
    assert near_equal(signed).tolist() == [-1, 0, 0]
    assert near_equal(signed, fixed=2).tolist() == [-1, -1, 0]


def test_a_band_that_begins_with_another_text_hides_nothing():
    rows = np.random.default_rng(0).integers(0, 255, (3, 64), dtype=np.uint8)
    rows[:, :4] = 7  # all share the first band
    rows[2] = rows[1]
    rows[2, 4::4] ^= 1  # no other band is shared
    assert near_equal(rows, threshold=0.7).tolist() == [-1, -1, 1]
