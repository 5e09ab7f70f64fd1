"""The teacher as it is read here against transformers: what differs is refused, what is told elsewhere is followed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoTokenizer

from edgekd.data.split import Split, TaskData
from edgekd.errors import UsageError
from edgekd.inputs.reading import check_reading
from edgekd.models.teacher import encoder_max_length, load_teacher
from edgekd.runtime.tokenise import encode_texts
from edgekd.settings.task import TextClassification

TEXTS = [f"turn the lamp on in room {i} please" for i in range(20)]


def data(pairs=None):
    return TaskData(TextClassification(pair=pairs is not None), (), unlabeled=Split("unlabeled", TEXTS, pairs))


@pytest.fixture
def folder(tiny_teacher, tmp_path):
    return shutil.copytree(tiny_teacher, tmp_path / "teacher")


def configure(folder, **changes):
    file = folder / "tokenizer_config.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | changes))


@pytest.mark.parametrize("pairs", [None, TEXTS[::-1]])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("lower", [True, False])
def test_what_the_tokenizers_settings_say_is_done(folder, pairs, side, lower):
    configure(folder, truncation_side=side, do_lower_case=lower)
    teacher, theirs = load_teacher(folder), AutoTokenizer.from_pretrained(folder)
    check_reading(teacher, data(pairs), 12)
    texts, seconds = ["Turn THE lamp on " * 9, "LAMP"], None if pairs is None else ["please now", "and then " * 30]
    given = theirs(texts, seconds, truncation=True, max_length=12)["input_ids"]
    found = encode_texts(teacher.tokenizer, texts, seconds, 12)
    assert [ids.tolist() for ids in np.split(found.input_ids, found.offsets[1:-1])] == given


def test_other_ids_are_refused_with_where_they_part(folder):
    teacher = load_teacher(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["lamp"], vocabulary["turn"] = vocabulary["turn"], vocabulary["lamp"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"transformers reads 'turn the lamp .* as .* where tokenizer.json gives"):
        check_reading(teacher, data(), 12)


def test_other_logits_are_refused(folder):
    teacher = load_teacher(folder)
    shape, weights = teacher.hosted
    name = next(name for name in weights if name.startswith("head.output"))
    broken = weights | {name: weights[name] + np.float32(0.01)}
    with pytest.raises(UsageError, match="gives other logits in transformers"):
        check_reading(replace(teacher, hosted=(shape, broken)), data(), 12)


def test_the_longest_input_is_known_without_the_weights(folder):
    assert encoder_max_length(folder) == load_teacher(folder).max_length


@pytest.mark.parametrize("kind", ["template", "bert"])
def test_token_types_are_those_that_transformers_gives(folder, kind):
    """A tokenizer of no family gives a model none, whatever its template says of the second text."""
    configure(folder, tokenizer_class="PreTrainedTokenizerFast")
    if kind == "bert":
        content = json.loads((folder / "tokenizer.json").read_text())
        names = [(name, content["model"]["vocab"][name]) for name in ("[SEP]", "[CLS]")]
        content["post_processor"] = {"type": "BertProcessing", "sep": names[0], "cls": names[1]}
        (folder / "tokenizer.json").write_text(json.dumps(content))
    teacher = load_teacher(folder)
    assert "token_type_ids" in teacher.inputs
    check_reading(teacher, data(TEXTS), 12)
    theirs = AutoTokenizer.from_pretrained(folder)("a lamp", "on", return_token_type_ids=False)
    assert "token_type_ids" not in theirs
    assert not encode_texts(teacher.tokenizer, ["a lamp"], ["on"]).token_type_ids.any()
