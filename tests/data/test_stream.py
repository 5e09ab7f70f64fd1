"""Texts to answer, as they come."""

import gzip
import io
import json
import os
import threading

import pytest

from edgekd.data.stream import open_texts
from edgekd.errors import DataError
from edgekd.runtime.config import BundleConfig
from edgekd.settings.columns import Columns

TEXTS = BundleConfig(("a", "b"), "text-classification", "classes", pair=False, max_length=16)
PAIRS = BundleConfig(("a", "b"), "text-classification", "classes", pair=True, max_length=16)
WORDS = BundleConfig(("O", "B-x"), "token-classification", "classes", pair=False, max_length=16)


def asked(content, form=None, task=TEXTS, columns=None):
    return [row for part in open_texts(io.BytesIO(content), form, task, columns or Columns()) for row in part]


def test_a_line_is_a_text_also_an_empty_one():
    found = asked("\ufeffturn on\r\n\nthe lamp, é\n \nlast".encode())
    assert [row["text"] for row in found] == ["turn on", "", "the lamp, é", " ", "last"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "x\\ny", "label": "a"}\n\n{"text": "z"}\n'),
        ("a.csv", 'label,text\na,"x\ny"\nb,z\n'),
        ("a.tsv", 'label\ttext\na\t"x\ny"\nb\tz\n'),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_tables(tmp_path, name, content, compressed):
    file = tmp_path / (name + ".gz" * compressed)
    file.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    (part,) = open_texts(file, None, TEXTS, Columns())
    assert part == [{"text": "x\ny"}, {"text": "z"}]


def test_a_streams_first_line_tells_json_from_text():
    assert asked(b'{"text": "x"}\n{"text": "y"}\n') == [{"text": "x"}, {"text": "y"}]
    assert asked(b"{curly} text\n") == [{"text": "{curly} text"}]
    assert asked(b'{"text": "x"}\n', "text") == [{"text": '{"text": "x"}'}]
    assert asked(b"") == []


def test_pairs_and_words():
    content = b'{"premise": "p", "hypothesis": "h"}\n'
    assert asked(content, task=PAIRS) == [{"text": "p", "text_pair": "h"}]
    assert asked(b'{"words": ["a", "b"]}\n', task=WORDS) == [{"words": ["a", "b"]}]
    assert asked(b"a b\n", task=WORDS) == [{"text": "a b"}]
    assert asked(b'{"body": "x", "text": "y"}\n', columns=Columns(text="Body")) == [{"text": "x"}]


@pytest.mark.parametrize(
    ("content", "form", "task", "words"),
    [
        (b'{"text": "x"}\n{"a": 1}\n', None, TEXTS, "-, row 2: no column for the text (found a); name it with --text"),
        (b'{"text": "x"}\n{broken\n', None, TEXTS, "-, row 2: broken JSON"),
        (b'{"text": 3}\n', None, TEXTS, "-, row 1: column 'text' holds 3, no text"),
        (b'{"text": null}\n', None, TEXTS, "holds null"),
        (b"x\n\xff\n", None, TEXTS, "-, row 2: not UTF-8"),
        (b"one text\n", None, PAIRS, "-, row 1: this model takes pairs"),
        (b'{"text": "x"}\n', None, PAIRS, "no column for the text pair (found text); name it with --pair-column"),
        (b'{"words": "a b"}\n', None, WORDS, "holds no list of words"),
        (b"text,label\nx,y,z\n", "csv", TEXTS, "row 2: 3 fields where the header has 2"),
    ],
)
def test_a_wrong_row_is_named(content, form, task, words):
    with pytest.raises(DataError) as raised:
        asked(content, form, task)
    assert words in str(raised.value)


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(open_texts(tmp_path / "a.csv", None, TEXTS, Columns()))
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="name it with --format"):
        list(open_texts(tmp_path / "a.xlsx", None, TEXTS, Columns()))
    (tmp_path / "a.csv.gz").write_bytes(b"text\nx\n")
    with pytest.raises(DataError, match="cannot be read"):
        list(open_texts(tmp_path / "a.csv.gz", None, TEXTS, Columns()))


def test_a_text_that_has_come_does_not_wait_for_the_next():
    """As at a terminal, or beside a program that writes a question and reads its answer."""
    inside, outside = os.pipe()
    answers, ended = [], threading.Event()

    def answer():
        with os.fdopen(inside, "rb") as stream:
            for part in open_texts(stream, None, TEXTS, Columns()):
                answers.append(part)
                ended.set()

    thread = threading.Thread(target=answer)
    thread.start()
    for text in ("first", "second"):
        ended.clear()
        os.write(outside, f"{text}\n".encode())
        assert ended.wait(10)
    os.close(outside)
    thread.join()
    assert answers == [[{"text": "first"}], [{"text": "second"}]]


def test_a_part_is_never_the_whole(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"text": "x" * 40}) + "\n" for _ in range(5000)))
    sizes = [len(part) for part in open_texts(file, None, TEXTS, Columns())]
    assert sum(sizes) == 5000
    assert sizes == [4096, 904]
