import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from edgekd.errors import UsageError
from edgekd.runtime import tokenise
from edgekd.runtime.encodings import MASKED, joined_logits
from edgekd.runtime.tokenise import (
    CHUNK,
    cut_at,
    cut_side,
    encode_raw,
    encode_texts,
    encode_words,
    load_tokenizer,
    pad_id,
    token_lengths,
)
from edgekd.runtime.words import PLAIN

from .conftest import wordpiece

CLS, SEP, PLAY, ING, JAZZ, IN, PARIS, DOT = 2, 3, 4, 5, 6, 7, 8, 9


def test_texts_are_flat_and_batches_are_right_padded(tokenizer):
    encodings = encode_texts(tokenizer, ["playing jazz", "jazz", ""])
    assert encodings.input_ids.tolist() == [CLS, PLAY, ING, JAZZ, SEP, CLS, JAZZ, SEP, CLS, SEP]
    assert encodings.input_ids.dtype == np.int32
    assert encodings.offsets.tolist() == [0, 5, 8, 10]
    assert encodings.lengths.tolist() == [5, 3, 2]
    assert encodings.rows.tolist() == [0, 1, 2, 3]
    batch = encodings.batch([1, 0], pad_to_multiple=1)
    assert batch["input_ids"].tolist() == [[CLS, JAZZ, SEP, 0, 0], [CLS, PLAY, ING, JAZZ, SEP]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert all(value.dtype == np.int64 for value in batch.values())
    assert encodings.batch([1])["input_ids"].shape == (1, 8)


def test_pairs_have_token_types_and_the_longer_text_is_cut(tokenizer):
    encodings = encode_texts(tokenizer, ["jazz"], ["paris paris paris paris"], max_length=6)
    batch = encodings.batch([0])
    assert batch["input_ids"][0].tolist() == [CLS, JAZZ, SEP, PARIS, PARIS, SEP, 0, 0]
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert encodings.truncated == 1


def test_truncation_counts_texts_and_never_stays_on(tokenizer):
    texts = ["jazz jazz jazz", "jazz"]
    assert encode_texts(tokenizer, texts, max_length=4).truncated == 1
    assert encode_texts(tokenizer, texts, max_length=5).truncated == 0
    assert encode_texts(tokenizer, texts).lengths.tolist() == [5, 3]


def test_no_room_for_text_is_an_error(tokenizer):
    with pytest.raises(UsageError, match="max_length 2 leaves no room"):
        encode_texts(tokenizer, ["jazz"], max_length=2)


def test_serial_parallel_and_chunked_encodings_are_the_same(tokenizer):
    texts = ["jazz in paris", "playing"] * (CHUNK // 2 + 1)
    parallel, serial = encode_texts(tokenizer, texts), encode_texts(tokenizer, texts, parallel=False)
    assert len(parallel) == CHUNK + 2
    np.testing.assert_array_equal(parallel.input_ids, serial.input_ids)


def test_words_answer_on_their_first_piece(tokenizer):
    encodings = encode_words(tokenizer, [["jazz"], ["playing", "\u200b", "", "jazz"]])
    assert encodings.answer_positions.tolist() == [1, 1, 3]
    assert encodings.answer_words.tolist() == [0, 0, 3]
    assert encodings.answer_offsets.tolist() == [0, 1, 3]
    assert encodings.words.tolist() == [1, 4]


def test_truncated_words_have_no_row(tokenizer):
    encodings = encode_words(tokenizer, [["jazz", "playing", "paris"]], max_length=4)
    assert encodings.answer_words.tolist() == [0, 1]
    assert encodings.words.tolist() == [3]
    assert encodings.truncated == 1


def test_rows_are_picked_from_logits(tokenizer):
    encodings = encode_words(tokenizer, [["jazz"], ["playing", "jazz"], ["in", "paris"]])
    chosen = [2, 1]
    logits = np.arange(2 * 5 * 1).reshape(2, 5, 1)
    assert encodings.rows_of(logits, chosen)[:, 0].tolist() == [1, 2, 6, 8]
    assert encodings.row_slots(chosen).tolist() == [3, 4, 1, 2]
    texts = encode_texts(tokenizer, ["jazz", "in"])
    np.testing.assert_array_equal(texts.rows_of(np.eye(2), [1, 0]), np.eye(2))
    with pytest.raises(ValueError, match="token task"):
        texts.row_index([0])


def test_take_keeps_texts_whole(tokenizer):
    words = [["jazz"], ["playing", "jazz"], ["in", "\u200b", "paris"]]
    taken = encode_words(tokenizer, words).take([2, 0])
    direct = encode_words(tokenizer, [words[2], words[0]])
    for name in (
        "input_ids",
        "offsets",
        "token_type_ids",
        "answer_positions",
        "answer_words",
        "answer_offsets",
        "words",
    ):
        np.testing.assert_array_equal(getattr(taken, name), getattr(direct, name), err_msg=name)
    assert encode_texts(tokenizer, ["jazz", "in"]).take([1]).input_ids.tolist() == [CLS, IN, SEP]
    assert len(encode_words(tokenizer, words).take([])) == 0


def test_nothing_to_encode(tokenizer):
    assert len(encode_texts(tokenizer, [])) == 0
    assert encode_words(tokenizer, []).rows.tolist() == [0]


def test_plain_text_and_its_words_encode_alike(tokenizer):
    text = "Playing  jazz\tin (Paris)."
    plain, spans = encode_raw(tokenizer, [text], lambda _, part: PLAIN.spans(part))
    assert spans == [PLAIN.spans(text)]
    words = PLAIN.words(text)
    assert words == ["Playing", "jazz", "in", "(", "Paris", ")", "."]
    np.testing.assert_array_equal(plain.answer_words, np.arange(7))
    np.testing.assert_array_equal(plain.answer_positions, [1, 3, 4, 5, 6, 7, 8])
    assert encode_words(tokenizer, [words]).answer_words.tolist() == list(range(7))


def test_byte_level_words_are_spelled_as_in_running_text():
    alphabet = {piece: i for i, piece in enumerate(["a", "b", "Ġ", "Ġb", "ab"])}
    tokenizer = Tokenizer(models.BPE(alphabet, [("Ġ", "b"), ("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encodings = encode_words(tokenizer, [["ab", "b", "ab"]])
    assert encodings.input_ids.tolist() == [4, 3, 2, 4]
    assert encodings.answer_positions.tolist() == [0, 1, 2]
    gap = encode_words(tokenizer, [["ab", "", "ab"]])
    assert gap.answer_words.tolist() == [0, 2]


def wordpiece_tokenizer():
    pieces = ["[UNK]", "[CLS]", "[SEP]", "play", "##ing", "jazz", "in", "##s", "new"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_level_tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(
        ["playing jazz in new plays"] * 3,
        trainers.BpeTrainer(vocab_size=285, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    return made


def unigram_tokenizer():
    pieces = ["<unk>", "\u2581", "\u2581play", "ing", "\u2581jazz", "\u2581in", "s", "\u2581n", "ew"]
    made = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made


@pytest.mark.parametrize("make", [wordpiece_tokenizer, byte_level_tokenizer, unigram_tokenizer])
@pytest.mark.parametrize("length", range(3, 13))
def test_words_keep_their_first_piece_wherever_a_text_is_cut(make, length):
    """What is kept of a cut text answers at the same places as the whole text; no word moves, none is doubled."""
    made = make()
    cls, sep = len(made.get_vocab()), len(made.get_vocab()) + 1
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", cls), ("</s>", sep)]
    )
    words = [["playing", "jazz", "in", "new", "plays", "playing"]]
    whole, cut = encode_words(made, words), encode_words(made, words, length)
    kept = [(p, w) for p, w in zip(whole.answer_positions, whole.answer_words, strict=True) if p < length - 1]
    assert list(zip(cut.answer_positions, cut.answer_words, strict=True)) == kept
    assert cut.answer_words.tolist() == list(range(len(kept)))
    joint = cut.with_whole_rows()
    assert joint.answer_positions.tolist() == [0, *cut.answer_positions]
    assert joint.answer_words.tolist() == [-1, *cut.answer_words]
    assert joint.rows.tolist() == [0, 1 + len(kept)]


def test_whole_rows_need_a_token_before_the_first_word():
    with pytest.raises(UsageError, match="no token before the first word"):
        encode_words(wordpiece_tokenizer(), [["jazz"]]).with_whole_rows()


def test_outputs_are_joined_without_a_say_in_each_other():
    whole, slots = np.ones((2, 3)), np.full((2, 4, 2), 7.0)
    joined = joined_logits([whole, slots])
    assert joined.shape == (2, 4, 5)
    assert joined[0, 0].tolist() == [1, 1, 1, MASKED, MASKED]
    assert joined[1, 3].tolist() == [MASKED] * 3 + [7, 7]
    assert joined_logits([slots]) is slots


def test_lengths_are_those_of_uncut_encodings(tokenizer):
    @dataclass
    class Texts:
        texts: list[str]
        pairs: list[str] | None

    encode_texts(tokenizer, ["jazz"], max_length=3)
    assert token_lengths(tokenizer, Texts(["jazz in paris", "jazz"], None)).tolist() == [5, 3]
    assert token_lengths(tokenizer, Texts(["jazz"], ["paris ."])).tolist() == [6]


def test_a_saved_tokenizer_loads_without_truncation_and_padding(tmp_path):
    saved = wordpiece()
    saved.enable_truncation(3)
    saved.enable_padding(length=10)
    saved.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert loaded.truncation is None
    assert loaded.padding is None
    assert encode_texts(loaded, ["jazz in paris"]).lengths.tolist() == [5]


def test_a_missing_or_broken_tokenizer_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"tokenizer\.json: missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_padding_token_is_found():
    assert pad_id(wordpiece(["[UNK]", "[CLS]", "[SEP]", "x", "[PAD]"])) == 4
    assert pad_id(wordpiece(["[UNK]", "<pad>"])) == 1
    assert pad_id(wordpiece(["[UNK]"])) == 0
    own = wordpiece()
    own.enable_padding(pad_id=7)
    assert pad_id(own) == 7


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("size", [40, 200, 3000])
@pytest.mark.parametrize("words", ["jazz in paris ,", "jazz", "\u5317\u4eac jazz", "x" * 90])
def test_a_long_text_gives_the_tokens_of_the_whole(tokenizer, side, size, words):
    text = (f"{words} " * size)[: 5 * size]
    cut_at(tokenizer, "right")
    tokenizer.enable_truncation(12, direction=side)
    expected = tokenizer.encode(text).ids
    cut_at(tokenizer, side)
    for texts in ([text], [text, "jazz", text]):
        found = encode_texts(tokenizer, texts, max_length=12)
        assert found.input_ids[: found.offsets[1]].tolist() == expected
        assert found.truncated == sum(len(text) > 12 for text in texts) or len(expected) < 12


def test_what_is_cut_off_is_not_tokenised(tokenizer, monkeypatch):
    seen = []

    class Counting:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def encode(self, text, *rest):
            seen.append(len(text))
            return tokenizer.encode(text, *rest)

    encode_texts(Counting(), ["jazz in paris " * 10_000], max_length=16)
    assert max(seen) < 1000


def test_the_side_is_kept_in_the_file(tokenizer, tmp_path):
    cut_at(tokenizer, "left").save(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(tmp_path)
    assert cut_side(again) == "left"
    assert len(encode_texts(again, ["jazz " * 50])) == 1
    assert cut_side(load_tokenizer(tmp_path)) == "left"
    assert cut_side(cut_at(again, "right")) == "right"


@pytest.mark.parametrize(
    ("normalizer", "words"),
    [
        (normalizers.Sequence([normalizers.Replace("a", "aa")] * 40), "makes up to 1.1e"),
        (normalizers.Prepend("x" * 10_000), "makes up to 1e\\+04"),
        (normalizers.Replace(Regex("a*"), "b" * 2000), "makes up to 2e"),
    ],
)
def test_a_tokenizer_that_makes_texts_longer_without_end_is_refused(tmp_path, normalizer, words):
    made = wordpiece()
    made.normalizer = normalizer
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match=words):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_takes_for_ever_is_refused(monkeypatch):
    monkeypatch.setattr(tokenise, "_SECONDS", 0.1)
    slow = SimpleNamespace(normalizer=None, encode_batch=lambda texts: time.sleep(1))
    with pytest.raises(UsageError, match=r"takes more than 0\.1 s over"):
        tokenise._check_bounded(slow, Path("tokenizer.json"))
