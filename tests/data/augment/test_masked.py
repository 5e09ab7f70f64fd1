import shutil

import numpy as np
import pytest
import torch

from edgekd.data.augment.masked import STOP_WORDS, MaskFiller, like
from edgekd.data.augment.sentence import Job, Sentence
from edgekd.errors import UsageError
from edgekd.settings.augment import MaskFill
from tests.data.augment.conftest import VOCABULARY

TEXT = "Turn the bright LAMP, please"


@pytest.fixture(scope="module")
def filler(masked_lm):
    return MaskFiller(MaskFill(masked_lm=str(masked_lm), ratio=1.0, top_k=5), "cpu")


def jobs(sentence, count=20):
    return [Job(sentence, np.random.default_rng(seed)) for seed in range(count)]


def test_words_become_whole_words_of_the_vocabulary(filler):
    sentence = Sentence.from_text(TEXT)
    for edited in filler(jobs(sentence)):
        turn, the, bright, lamp, mark, please = edited.sentence.words
        assert (the, mark) == ("the", ",")
        assert turn[0].isupper()
        assert lamp.isupper() or len(lamp) == 1
        for old, new in (("turn", turn), ("bright", bright), ("lamp", lamp), ("please", please)):
            assert new.lower() in {*VOCABULARY, *"abcdefghijklmnopqrstuvwxyz"}
            assert new.lower() != old
        assert edited.sentence.gaps == sentence.gaps


def test_candidates_are_the_models_likeliest_words(filler):
    """The independent way: one text at a time, transformers' own pair encoding, a sort of all logits."""
    sentence = Sentence.from_text("play my song now")
    tokenizer, model = filler.tokenizer, filler.model
    seen = {edited.sentence.words[2] for edited in filler(jobs(sentence, 200))}
    inputs = tokenizer("play my [MASK] now", "play my song now", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0, inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
    order = tokenizer.convert_ids_to_tokens(logits.argsort(descending=True).tolist())
    words = [piece for piece in order if piece.isalpha() and piece != "song"]
    assert seen == set(words[:5])


def test_a_batch_does_not_decide_what_a_text_becomes(filler):
    long = Sentence.from_text("rain sun cloud storm wind cold please now today")
    alone = [edited.sentence.words for job in jobs(Sentence.from_text(TEXT), 5) for edited in filler([job])]
    together = filler([*jobs(long, 5), *jobs(Sentence.from_text(TEXT), 5)])
    assert [edited.sentence.words for edited in together[5:]] == alone


def test_a_model_whose_output_layer_is_not_known(masked_lm, monkeypatch):
    """Logits of all tokens, in batches that hold no more than so many, give the same words."""
    filler = MaskFiller(MaskFill(masked_lm=str(masked_lm), ratio=1.0), "cpu")
    known = [edited.sentence.words for edited in filler(jobs(Sentence.from_text(TEXT)))]
    shapes = []
    filler.model.register_forward_hook(lambda _, inputs, output: shapes.append(output.logits.shape))
    filler.output = None
    monkeypatch.setattr("edgekd.data.augment.masked._LOGITS", 20 * filler.model.config.vocab_size)
    assert [edited.sentence.words for edited in filler(jobs(Sentence.from_text(TEXT)))] == known
    assert len(shapes) > 1
    assert all(batch == 1 or batch * length <= 20 for batch, length, _ in shapes)


def test_the_ratio_and_slots(masked_lm):
    spec = MaskFill(masked_lm=str(masked_lm), ratio=0.4, stop_words="none")
    filler = MaskFiller(spec, "cpu")
    sentence = Sentence.from_words(VOCABULARY, ["O"] * len(VOCABULARY))
    changed = [
        sum(a != b for a, b in zip(edited.sentence.words, VOCABULARY, strict=True)) for edited in filler(jobs(sentence))
    ]
    assert 0.3 < np.mean(changed) / len(VOCABULARY) < 0.5
    tagged = Sentence.from_words(["play", "loud", "jazz"], ["O", "B-music", "I-music"])
    assert {tuple(edited.sentence.words[1:]) for edited in filler(jobs(tagged))} == {("loud", "jazz")}
    free = MaskFiller(spec.model_copy(update={"keep_slots": False, "ratio": 1.0}), "cpu")
    assert all(edited.sentence.words[1] != "loud" for edited in free(jobs(tagged)))


def test_a_word_beyond_the_models_length_stays(filler):
    long = Sentence.from_text(" ".join(["lamp"] * 100))
    for edited in filler(jobs(long, 2)):
        # [CLS] and 63 words fill the 64 positions.
        assert all(word != "lamp" for word in edited.sentence.words[:63])
        assert edited.sentence.words[63:] == ["lamp"] * 37


def test_a_text_that_spells_the_mask_token(filler):
    """The word is masked at its own place, not where the text says [MASK]."""
    places = [("[MASK] play", 7, 11), ("play [MASK]", 0, 4)]
    inputs, masks = filler._encode(places)
    tokens = [filler.tokenizer.convert_ids_to_tokens(one["input_ids"]) for one in inputs]
    assert tokens == [
        ["[CLS]", "[MASK]", "[MASK]", "[SEP]", "[MASK]", "play", "[SEP]"],
        ["[CLS]", "[MASK]", "[MASK]", "[SEP]", "play", "[MASK]", "[SEP]"],
    ]
    assert masks == [2, 1]


def test_nothing_but_stop_words(filler):
    assert {"the", "your"} <= STOP_WORDS
    assert filler(jobs(Sentence.from_text("it is not the!"), 1)) == [None]


def test_like():
    assert like("lamp", "Light") == "Lamp"
    assert like("lamp", "LIGHT") == "LAMP"
    assert like("lamp", "I") == "Lamp"
    assert like("iPhone", "light") == "iPhone"


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A folder with a random RoBERTa masked LM and a byte-level BPE tokenizer trained on a few words."""
    from tokenizers import AddedToken, ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    folder = tmp_path_factory.mktemp("roberta")
    made = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(
        [f"a {word} {word}s caf\u00e9 caf\u00e9s" for word in VOCABULARY] * 5, 500, 2, False, specials
    )
    made._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>",
    )  # fmt: skip
    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=66, type_vocab_size=1,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


def test_byte_level_pieces(byte_level):
    filler = MaskFiller(MaskFill(masked_lm=str(byte_level), ratio=1.0, top_k=200, stop_words="none"), "cpu")
    assert filler.limit == 64
    assert "caf\u00e9" in filler.words.values()
    assert all(filler.tokenizer.decode([i]).startswith(" ") for i in filler.words)
    made = filler(jobs(Sentence.from_text("a lamp, please " * 20)))
    words = {word for edited in made for word in edited.sentence.words}
    assert words <= {*filler.words.values(), ",", "A", "a", "lamp", "please"}
    assert len(words) > 20


def test_folders_that_cannot_be_used(tmp_path, masked_lm, tiny_encoder, marian):
    def refuse(folder, message):
        with pytest.raises(UsageError, match=message):
            MaskFiller(MaskFill(masked_lm=str(folder)), "cpu")

    refuse(tmp_path / "none", "mask_fill.masked_lm: .* no such folder")
    refuse(tmp_path, "no config.json")
    refuse(tiny_encoder, "no fitting cls.predictions")
    refuse(marian, "cannot load this model")
    pickled = tmp_path / "pickled"
    shutil.copytree(masked_lm, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refuse(pickled, "no model.safetensors")
    bare = tmp_path / "bare"
    shutil.copytree(masked_lm, bare)
    (bare / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}')
    refuse(bare, "mask and a pad token")
    lost = tmp_path / "lost"
    shutil.copytree(masked_lm, lost)
    (lost / "tokenizer.json").unlink()
    refuse(lost, "vocabulary|tokenizer")
