import pytest

from edgekd.data.convert import convert
from edgekd.data.table import Table
from edgekd.errors import DataError
from edgekd.settings.columns import Columns
from edgekd.settings.task import MultiLabelClassification, TextClassification, TextRegression, TokenClassification

ONE, PAIR, TOKENS = TextClassification(), TextClassification(pair=True), TokenClassification()


def table(rows, classes=None):
    return Table("train.jsonl", rows, [10 + i for i in range(len(rows))], classes or {})


def run(rows, task=ONE, name="train", columns=None, classes=None):
    return convert(table(rows, classes), name, task, columns or Columns())


def test_labels_of_every_kind_become_names():
    rows = [{"text": "x", "label": value} for value in ("a", 1, 2.0, "0", 0.5, " a ")]
    assert run(rows)[0].labels == ["a", "1", "2", "0", "0.5", "a"]
    named = [{"text": "x", "label": 1}, {"text": "y", "label": 0}]
    assert run(named, classes={"label": ["no", "yes"]})[0].labels == ["yes", "no"]


def test_a_pair_has_two_texts():
    split, _ = run([{"premise": "x", "hypothesis": "y", "label": "a"}], PAIR)
    assert (split.texts, split.pairs) == (["x"], ["y"])


def test_labels_of_unlabelled_text_are_refused_unless_they_are_to_be_dropped():
    text, words = [{"text": "y"}, {"text": "x", "label": "a"}], [{"tokens": ["x"], "tags": ["wrong", "ly"]}]
    with pytest.raises(DataError, match=r"row 11: unlabelled text with a label \(column 'label'\).*--drop-labels"):
        run(text, name="unlabeled")
    with pytest.raises(DataError, match=r"row 10: unlabelled text with a label \(column 'tags'\)"):
        run(words, TOKENS, name="unlabeled")
    assert run([{"text": "x", "label": None}], name="unlabeled")[1] == []
    assert run([{"text": "x", "label": -1}], name="unlabeled", classes={"label": ["neg"]})[1] == []
    drop = Columns(drop_labels=True)
    split, notes = run(text, name="unlabeled", columns=drop)
    assert split.labels is None
    assert notes == ["unlabeled: its column label is not used"]
    split, notes = run(words, TOKENS, name="unlabeled", columns=drop)
    assert split.tags is None
    assert notes == ["unlabeled: its column tags is not used"]


def test_without_any_label_there_is_no_gold():
    for rows in ([{"text": "x"}], [{"text": "x", "label": None}], [{"text": "x", "label": " "}]):
        assert not run(rows)[0].has_gold
    assert not run([{"tokens": ["x"]}], TOKENS)[0].has_gold
    assert not run([{"tokens": ["x"], "tags": None}], TOKENS)[0].has_gold
    assert run([{"text": "x", "label": -1}], classes={"label": ["a"]})[0].labels is None


def test_tokens_and_tags():
    rows = [{"tokens": ["go", "to", "Paris"], "tags": ["O", "O", "B-city"]}, {"tokens": "to Rome", "tags": "O B-city"}]
    split, notes = run(rows, TOKENS)
    assert split.texts == ["go to Paris", "to Rome"]
    assert split.words == [["go", "to", "Paris"], ["to", "Rome"]]
    assert split.tags == [["O", "O", "B-city"], ["O", "B-city"]]
    assert notes == []
    named, _ = run([{"tokens": ["x"], "tags": [1]}], TOKENS, classes={"tags": ["O", "B-x"]})
    assert named.tags == [["B-x"]]


def test_illegal_bio_is_repaired_and_counted():
    good = {"tokens": ["x"], "tags": ["B-a"]}
    split, notes = run([good, {"tokens": ["x", "y", "z"], "tags": ["I-a", "I-a", "I-b"]}], TOKENS)
    assert split.tags == [["B-a"], ["B-a", "I-a", "B-b"]]
    assert notes == ["train: 2 I- tags that begin a span read as B-, as conlleval does"]
    rows = [good, {"tokens": ["x"], "tags": ["I-a"]}, {"tokens": ["x"], "tags": ["I-b"]}]
    with pytest.raises(DataError, match="row 11: an I- tag begins a span, here and in 1 more rows"):
        run(rows, TOKENS, columns=Columns(strict=True))


@pytest.mark.parametrize(
    "tags",
    [
        ["I-a", "I-a", "B-a", "O", "I-b"],  # IOB1: B- only beside a span of its type
        ["I-a", "I-a", "O", "I-b", "I-b"],
        ["a", "a", "O", "b", "e-mail"],
        ["B-a", "I-a", "L-a", "U-b", "O"],
        ["B-a", "E-a", "S-b", "O", "S-a"],
    ],
)
def test_tags_of_other_schemes_are_kept_as_they_are(tags):
    rows = [{"tokens": ["v", "w", "x", "y", "z"], "tags": tags}]
    split, notes = run(rows, TOKENS, columns=Columns(strict=True))
    assert (split.tags, notes) == ([tags], [])


def test_unlabelled_plain_text_is_split_into_words():
    split, notes = run([{"text": "Go to  Paris!"}], TOKENS, name="unlabeled")
    assert split.words == [["Go", "to", "Paris", "!"]]
    assert split.texts == ["Go to Paris !"]
    assert len(notes) == 1


def test_a_text_file_needs_no_column_names():
    assert run([{"text": "x"}], name="unlabeled", columns=Columns(text="body"))[0].texts == ["x"]


@pytest.mark.parametrize(
    ("rows", "task", "columns", "message"),
    [
        (
            [{"body": "x", "label": "a"}],
            ONE,
            Columns(),
            r"no column for the text \(found body, label\); .* --text-column",
        ),
        ([{"text": "x", "label": "a"}], ONE, Columns(text="body"), r"no column 'body' \(found text, label\)"),
        ([{"text": "x", "id": 1}], ONE, Columns(label="y"), r"no column 'y' \(found text, id\); .* --label-column"),
        ([{"text": "x", "label": "a"}], PAIR, Columns(), r"no column for the text pair .* --pair-column"),
        ([{"text": "x", "tags": ["O"]}], TOKENS, Columns(), r"no column for the tokens .* --tokens-column"),
        ([{"tokens": ["x"], "t": 1}], TOKENS, Columns(tags="y"), r"no column 'y' .* --tags-column"),
        ([{"text": "x", "label": "a"}, {"label": "a"}], ONE, Columns(), r"row 11: no text in column 'text'"),
        ([{"text": 3, "label": "a"}], ONE, Columns(), r"row 10: column 'text' holds a number, not a string"),
        ([{"text": " \n", "label": "a"}], ONE, Columns(), r"row 10: empty text"),
        ([{"text": "\ud800", "label": "a"}], ONE, Columns(), r"row 10: half of a surrogate pair"),
        ([{"text": "x", "text_pair": "", "label": "a"}], PAIR, Columns(), r"row 10: empty text in column 'text_pair'"),
        ([{"text": "x", "label": "a"}, {"text": "y"}], ONE, Columns(), r"row 11: no label in column 'label'"),
        ([{"text": "x", "label": {}}], ONE, Columns(), r"row 10: column 'label' holds an object, not a label"),
        ([{"text": "x", "label": ["a"]}], ONE, Columns(), r"row 10: column 'label' holds a list, not a label"),
        ([{"tokens": ["x", "y"], "tags": ["O"]}], TOKENS, Columns(), r"row 10: 2 tokens but 1 tags"),
        ([{"tokens": ["x", "y"], "tags": ["B-a", "PER"]}], TOKENS, Columns(), r"row 10: tag 'PER' is neither O nor B-"),
        ([{"tokens": ["x", "y"], "tags": ["B-a", "X-b"]}], TOKENS, Columns(), r"row 10: tag 'X-b' is neither O nor B-"),
        ([{"tokens": list("xyz"), "tags": ["B-a", "L-a", "S-a"]}], TOKENS, Columns(), r"row 10: tag 'L-a' is of BILOU"),
        ([{"tokens": ["x"], "tags": [3]}], TOKENS, Columns(), r"row 10: tag 3 is no name of a tag"),
        ([{"tokens": [], "tags": []}], TOKENS, Columns(), r"row 10: empty text in column 'tokens'"),
        ([{"tokens": ["x", 3], "tags": ["O", "O"]}], TOKENS, Columns(), r"row 10: .* holds a number among the tokens"),
        (
            [{"tokens": {"a": 1}, "tags": ["O"]}],
            TOKENS,
            Columns(),
            r"row 10: column 'tokens' holds an object, not a list",
        ),
        (
            [{"tokens": ["x"], "tags": ["O"]}, {"tokens": ["y"]}],
            TOKENS,
            Columns(),
            r"row 11: no tags in column 'tags'",
        ),
    ],
)
def test_a_wrong_row_or_column_is_one_clear_line(rows, task, columns, message):
    with pytest.raises(DataError, match=message) as error:
        run(rows, task, columns=columns)
    assert str(error.value).startswith("train.jsonl")
    assert "\n" not in str(error.value)


def test_a_class_number_must_have_a_name():
    with pytest.raises(DataError, match="row 10: label 2 in column 'label' is none of its 2 classes"):
        run([{"text": "x", "label": 2}], classes={"label": ["a", "b"]})


@pytest.mark.parametrize(
    ("cells", "sets"),
    [
        ([["a", "b", "a"], []], [["a", "b"], []]),
        (["a|b, c", "", " c "], [["a", "b, c"], [], ["c"]]),
        (["a; b", "c"], [["a", "b"], ["c"]]),
        (["a,b", ["c"]], [["a", "b"], ["c"]]),
        ([[1, 0], [3]], [["1", "0"], ["3"]]),
        ([[], ""], None),
        ([None, None], None),
    ],
)
def test_sets_of_labels(cells, sets):
    split, _ = run([{"text": "x", "labels": cell} for cell in cells], MultiLabelClassification())
    assert (split.label_sets, split.labels) == (sets, None)
    assert split.has_gold is (sets is not None)


def test_sets_of_classes():
    rows = [{"text": "x", "labels": [1, 0]}]
    assert run(rows, MultiLabelClassification(), classes={"labels": ["no", "yes"]})[0].label_sets == [["yes", "no"]]


@pytest.mark.parametrize(
    ("cell", "task", "message"),
    [
        (0.5, MultiLabelClassification(), "row 11: column 'label' holds a number, not a list of labels"),
        ([None], MultiLabelClassification(), "row 11: .* holds nothing among the labels"),
        (None, MultiLabelClassification(), "row 11: no labels in column 'label'"),
        ("high", TextRegression(), "row 11: column 'label' holds \"high\", not a finite number"),
        (float("inf"), TextRegression(), "row 11: .* not a finite number"),
        (float("nan"), TextRegression(), "row 11: no value in column 'label'"),
        (True, TextRegression(), "row 11: column 'label' holds true or false"),
        (None, TextRegression(), "row 11: no value in column 'label'"),
    ],
)
def test_a_wrong_set_or_value_is_named(cell, task, message):
    good = ["a"] if isinstance(task, MultiLabelClassification) else 1
    with pytest.raises(DataError, match=message):
        run([{"text": "x", "label": good}, {"text": "y", "label": cell}], task)


def test_values_by_their_usual_names():
    rows = [{"sentence1": "x", "sentence2": "y", "score": value} for value in (1, "2.5", 0.25)]
    split, _ = run(rows, TextRegression(pair=True))
    assert (split.values, split.pairs) == ([1.0, 2.5, 0.25], ["y"] * 3)
    assert run(rows, TextRegression(pair=True), columns=Columns(label="score"))[0].values == [1.0, 2.5, 0.25]


@pytest.mark.parametrize("nothing", [None, float("nan"), "", "  ", "NaN", "nan", "<NA>", "null"])
def test_what_stands_for_nothing_is_no_class(nothing):
    rows = [{"text": "x", "label": "a"}, {"text": "y", "label": nothing}]
    with pytest.raises(DataError, match="row 11: no label in column 'label'"):
        run(rows, ONE)
    assert run([{"text": "x", "label": nothing}], ONE)[0].labels is None


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        ([True, False], ["True", "False"]),
        ([1.0, 2.0], ["1", "2"]),
        (["1.0", "a"], ["1.0", "a"]),
        (["1.5", "2.0"], ["1.5", "2.0"]),
        ([1, 0], ["1", "0"]),
    ],
)
def test_labels_that_look_like_numbers(cells, labels):
    assert run([{"text": "x", "label": cell} for cell in cells], ONE)[0].labels == labels


@pytest.mark.parametrize("hidden", [None, -1, float("nan"), "", "nan", []])
def test_hidden_labels_of_unlabelled_text_are_no_labels(hidden):
    split, notes = run([{"text": "x", "label": hidden}], ONE, name="unlabeled")
    assert (split.labels, notes) == (None, [])


@pytest.mark.parametrize("cell", ["['play', 'jazz']", '["play", "jazz"]', "play jazz"])
def test_a_list_that_a_table_holds_as_text_is_a_list(cell):
    assert run([{"tokens": cell, "tags": "O B-genre"}], TOKENS)[0].words == [["play", "jazz"]]


def test_half_a_list_is_refused():
    with pytest.raises(DataError, match="row 10: column 'tokens' holds a list that is no Python or JSON list"):
        run([{"tokens": "['play', 'jazz]", "tags": "O O"}], TOKENS)
