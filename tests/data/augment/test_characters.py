import numpy as np

from edgekd.data.augment.characters import QWERTY, casing, typos
from edgekd.data.augment.sentence import Job, Sentence
from edgekd.settings.augment import Casing, Typos

TEXT = Sentence.from_text("Please turn the LAMP off, now!")


def job(sentence, seed):
    return Job(sentence, np.random.default_rng(seed))


def test_the_keys_that_touch():
    assert QWERTY["s"] == "adewxz"
    assert QWERTY["q"] == "aw"
    assert QWERTY["p"] == "lo"
    assert all(key in QWERTY[other] for key, others in QWERTY.items() for other in others)


def test_a_typo_is_one_neighbour_in_the_same_case():
    for seed in range(40):
        edited = typos(Typos(ratio=0.5), job(TEXT, seed))
        changed = [(a, b) for a, b in zip(TEXT.words, edited.sentence.words, strict=True) if a != b]
        assert 1 <= len(changed) <= 3
        for before, after in changed:
            assert before in ("Please", "turn", "LAMP")
            [(was, now)] = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
            assert now.lower() in QWERTY[was.lower()]
            assert now.isupper() == was.isupper()


def test_words_too_short_or_of_other_letters_get_no_typo():
    assert typos(Typos(), job(Sentence.from_text("put it on \u043b\u0430\u043c\u043f\u0430 12345"), 0)) is None
    assert typos(Typos(min_letters=3), job(Sentence.from_text("put"), 0)) is not None


def test_casing_draws_among_what_changes_the_text():
    made = {casing(Casing(), job(TEXT, seed)).sentence.text for seed in range(40)}
    assert made == {
        "please turn the lamp off, now!",
        "PLEASE TURN THE LAMP OFF, NOW!",
        "Please Turn The Lamp Off, Now!",
    }
    assert casing(Casing(styles=("lower",)), job(Sentence.from_text("lamp off"), 0)) is None


def test_casing_and_typos_keep_words_in_place():
    words = Sentence.from_words(["Play", "loud", "jazz"], ["O", "B-m", "I-m"])
    assert typos(Typos(), job(words, 0)).alignment == [0, 1, 2]
    assert casing(Casing(styles=("upper",)), job(words, 0)).sentence.words == ["PLAY", "LOUD", "JAZZ"]
