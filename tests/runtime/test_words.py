import pytest

from edgekd.runtime.words import PLAIN, WordSplit, joined_spans


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't stop", ["don't", "stop"]),
        ("(U.S.) $5!", ["(", "U.S", ".", ")", "$", "5", "!"]),
        ("\u53bbParis\u5427", ["\u53bb", "Paris", "\u5427"]),
        ("...", [".", ".", "."]),
        ("the the", ["the", "the"]),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092e\u0947\u0902"],
        ),
        ("", []),
    ],
)
def test_words_where_no_data_tell_otherwise(text, words):
    assert PLAIN.words(text) == words


TWEETS = [
    ["@bob", "likes", "#jazz"],
    ["$500", "for", "C++", "in", "the", "U.S."],
    ["50%", "of", ".NET", ",", "and", "C#"],
]
NEWS = [["New", "York", ",", "in", "the", "U.S.", "."], ["He", "said", ":", "no", "."], ["(", "yes", ")", "."]]


@pytest.mark.parametrize(
    ("data", "text", "words"),
    [
        (
            TWEETS,
            "@anna in the U.S., 20% of C++ #rain",
            ["@anna", "in", "the", "U.S.", ",", "20%", "of", "C++", "#rain"],
        ),
        (NEWS, "He left (New York).", ["He", "left", "(", "New", "York", ")", "."]),
        ([["\u5317\u4eac", "\u6b22\u8fce", "\u4f60"]], "\u5317\u4eac \u4f60", ["\u5317\u4eac", "\u4f60"]),
        ([["\u5317", "\u4eac"]], "\u5317\u4eac", ["\u5317", "\u4eac"]),
    ],
)
def test_plain_text_is_split_as_the_data_are(data, text, words):
    assert WordSplit.of(data).words(text) == words


@pytest.mark.parametrize("data", [TWEETS, [["please", "\u5317\u4eac"]], [["a", "b"]]])
def test_the_datas_own_words_come_back(data):
    split = WordSplit.of(data)
    for words in data:
        assert split.words(" ".join(words)) == words
        assert split.spans(" ".join(words)) == joined_spans(words)


def test_words_that_end_in_marks_stay_whole_where_the_mark_stands_alone_elsewhere():
    texts = [["in", "the", "U.S.", "today", "."], ["St.", "Anna", ",", "now", "."], ["no", ".", "yes", "."]] * 3
    split = WordSplit.of(texts)
    assert split.whole == ("St.", "U.S.")
    assert split.words("(St. Anna, in the U.S., is here.)") == [
        "(", "St.", "Anna", ",", "in", "the", "U.S.", ",", "is", "here", ".", ")"
    ]  # fmt: skip


def test_a_word_that_is_mostly_parted_from_its_mark_is_parted():
    texts = [["now", "."]] * 5 + [["now."]] + [["then", "."]] * 5
    assert WordSplit.of(texts).words("now.") == ["now", "."]
