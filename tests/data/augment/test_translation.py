import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from edgekd.data.augment.sentence import Job, Sentence
from edgekd.data.augment.translation import BackTranslator, MarianTranslator
from edgekd.errors import UnavailableError, UsageError
from edgekd.settings.augment import BackTranslation

TEXTS = ["turn the lamp", "play my song now please", "rain"]


class Fake:
    """Marks what it got; refuses what is marked "long"."""

    def __init__(self, mark):
        self.mark, self.calls = mark, []

    def translate(self, texts, seed):
        self.calls.append((list(texts), seed))
        return ["" if not text or "long" in text else f"{text} {self.mark}" for text in texts]


def jobs(texts, seed=0):
    return [Job(Sentence.from_text(text), np.random.default_rng([seed, i])) for i, text in enumerate(texts)]


def test_there_and_back_in_order_with_the_language_before_the_text():
    there, back = Fake("fr"), Fake("en")
    made = BackTranslator(there, back, ">>fr<<")(jobs([*TEXTS, "a long text"]))
    assert [edited and edited.sentence.text for edited in made] == [*(f">>fr<< {text} fr en" for text in TEXTS), None]
    assert there.calls[0][0][0] == ">>fr<< rain"
    assert there.calls[0][1] != back.calls[0][1]


def test_batches_hold_texts_of_like_length_and_seeds_differ():
    there = Fake("fr")
    texts = [f"{'lamp ' * (i % 7)}{i}" for i in range(100)]
    made = BackTranslator(there, Fake("en"))(jobs(texts))
    assert [edited.sentence.text for edited in made] == [f"{text} fr en" for text in texts]
    sizes = [len(batch) for batch, _ in there.calls]
    assert sizes == [32, 32, 32, 4]
    assert len({seed for _, seed in there.calls}) == 4
    assert max(map(len, there.calls[0][0])) <= min(map(len, there.calls[1][0]))


def test_the_same_text_again_is_nothing_new():
    class Same:
        def translate(self, texts, seed):
            return [f"{text} " for text in texts]

    assert BackTranslator(Same(), Same())(jobs(["turn the lamp"])) == [None]


@pytest.fixture(scope="module")
def translator(marian):
    return MarianTranslator(str(marian), "there", "cpu", top_p=0.9, temperature=0.9)


def test_marian_samples_by_the_seed_and_leaves_the_global_stream_alone(translator):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    once, again, other = (translator.translate(TEXTS, seed) for seed in (1, 1, 2))
    assert once == again != other
    assert any(once)
    assert torch.equal(before, torch.random.get_rng_state())


def test_marian_skips_what_it_cannot_take(translator):
    short, empty, long = translator.translate(["lamp", "", "lamp " * 32], 0)
    assert short
    assert (empty, long) == ("", "")
    assert translator.translate([""], 0) == [""]


def test_a_narrow_nucleus_is_the_likeliest_translation(marian):
    narrow = MarianTranslator(str(marian), "there", "cpu", top_p=1e-6, temperature=1.0)
    inputs = narrow.tokenizer(TEXTS[:1], return_tensors="pt")
    inputs.pop("token_type_ids", None)
    greedy = narrow.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=24)
    expected = narrow.tokenizer.decode(greedy[0], skip_special_tokens=True)
    assert narrow.translate(TEXTS[:1], 5) == narrow.translate(TEXTS[:1], 6) == [expected]


def test_two_marian_folders_end_to_end(marian):
    spec = BackTranslation(there=str(marian), back=str(marian))
    once, again = (
        [edited and edited.sentence.text for edited in BackTranslator.load(spec, "cpu")(jobs(TEXTS))] for _ in range(2)
    )
    assert once == again
    assert any(once)


def test_folders_that_cannot_be_used(tmp_path, marian, masked_lm):
    with pytest.raises(UsageError, match=r"back_translation\.back: .* no such folder"):
        BackTranslator.load(BackTranslation(there=str(marian), back=str(tmp_path / "none")), "cpu")
    with pytest.raises(UsageError, match=r"back_translation\.there: .*"):
        BackTranslator.load(BackTranslation(there=str(masked_lm), back=str(marian)), "cpu")


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_sentencepiece_files_without_the_library(tmp_path, marian):
    shutil.copytree(marian, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "source.spm").write_bytes(b"")
    with pytest.raises(UnavailableError, match="pip install sentencepiece"):
        MarianTranslator(str(tmp_path), "there", "cpu", top_p=0.9, temperature=0.9)
