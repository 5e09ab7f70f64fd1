from __future__ import annotations

import json
import shlex
import shutil
import socket
from unittest.mock import Mock

import pytest
import torch
import transformers as hf
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from edgekd.errors import UnavailableError, UsageError
from edgekd.models import teacher as module
from edgekd.models.folder import model_folder
from edgekd.models.quiet import quiet_transformers
from edgekd.models.student import from_weights
from edgekd.models.teacher import load_encoder, load_teacher

from .conftest import make_batch, make_teacher

NAMES = ["buy", "sell", "hold", "wait", "none"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(50))]


def save(model, folder, names=NAMES, tokenizer=True):
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
    with quiet_transformers():
        model.save_pretrained(folder)
    if tokenizer:
        vocabulary = {word: i for i, word in enumerate(WORDS)}
        made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
        made.save(str(folder / "tokenizer.json"))
    return folder


def edit(folder, **changes):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.fixture
def folder(tmp_path):
    return save(make_teacher(), tmp_path / "teacher")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError(f"a socket was opened: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_folder_is_loaded_whole(folder):
    teacher = load_teacher(folder)
    assert teacher.folder == folder
    assert teacher.labels == tuple(NAMES)
    assert not teacher.generic_labels
    assert teacher.head == "sequence"
    assert (teacher.width, teacher.depth, teacher.heads, teacher.ffn) == (32, 3, 4, 48)
    assert teacher.max_length == 40
    assert teacher.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert not teacher.model.training
    batch = make_batch(teacher.model)
    student = from_weights(*teacher.hosted, teacher.labels)
    torch.testing.assert_close(student(**batch).logits, teacher.model(**batch).logits, atol=1e-5, rtol=1e-5)
    assert teacher.tokenizer.encode("w3 W4").ids == [2, 8, 9, 3]  # as transformers reads the folder


def test_a_string_will_do(folder):
    assert load_teacher(str(folder)).folder == folder


def test_token_teachers(tmp_path):
    teacher = load_teacher(save(make_teacher("distilbert", "token"), tmp_path))
    assert teacher.head == "token"
    assert (teacher.width, teacher.depth, teacher.heads, teacher.ffn) == (32, 3, 4, 48)
    assert teacher.inputs == ("input_ids", "attention_mask")


def test_generic_labels_are_noted(tmp_path):
    teacher = load_teacher(save(make_teacher(), tmp_path, names=None))
    assert teacher.labels[0] == "LABEL_0"
    assert teacher.generic_labels


def test_left_over_positions_cap_the_length(tmp_path):
    assert load_teacher(save(make_teacher("roberta"), tmp_path)).max_length == 38


def test_the_tokenizer_caps_the_length(folder):
    side = folder / "tokenizer_config.json"
    side.write_text('{"model_max_length": 16}')
    assert load_teacher(folder).max_length == 16
    side.write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert load_teacher(folder).max_length == 40


def test_a_foreign_architecture_teaches_unhosted(tmp_path):
    config = hf.DebertaV2Config(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=24,
        num_labels=5,
    )
    teacher = load_teacher(save(hf.DebertaV2ForSequenceClassification(config), tmp_path))
    assert teacher.hosted is None
    assert (teacher.width, teacher.depth, teacher.heads, teacher.ffn) == (16, 2, 2, 20)
    assert teacher.inputs == ("input_ids", "attention_mask")
    assert teacher.max_length == 24


def test_half_precision_files_teach_in_float32(tmp_path):
    assert load_teacher(save(make_teacher().half(), tmp_path)).model.dtype == torch.float32


def test_loading_is_silent_and_leaves_settings(folder, capfd):
    before = hf.utils.logging.get_verbosity()
    load_teacher(folder)
    load_encoder(folder, ["a", "b"], "token")
    assert capfd.readouterr() == ("", "")
    assert hf.utils.logging.get_verbosity() == before


def test_a_tokenizer_is_made_from_a_vocabulary(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    teacher = load_teacher(folder)
    assert teacher.tokenizer.encode("w3 w4").tokens == ["[CLS]", "w3", "w4", "[SEP]"]


def test_the_tokenizer_is_saved_with_its_side_files(folder, tmp_path):
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 16}')
    out = tmp_path / "out"
    out.mkdir()
    load_teacher(folder).save_tokenizer(out)
    assert sorted(file.name for file in out.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode("w3").ids == [2, 8, 3]


def refused(folder, error=UsageError):
    """The one line with which a teacher is refused."""
    with pytest.raises(error) as caught:
        load_teacher(folder)
    line = str(caught.value)
    assert "\n" not in line
    return line


def says(line, *parts):
    """Whether a line has all of these in it."""
    return all(part in line for part in parts)


def test_folders_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is empty" in refused("")
    assert says(refused(tmp_path / "none"), str(tmp_path / "none"), "no such folder")
    assert "no such folder" in refused("./none")
    assert "no such folder" in refused("none")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("x")
    assert "no config.json" in refused(tmp_path / "empty")


def test_weights_as_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    line = refused(folder)
    assert "pickle" in line
    command = shlex.split(line[line.index("python -c") :])
    assert command[:2] == ["python", "-c"]
    exec(command[2], {})
    assert load_teacher(folder).labels == tuple(NAMES)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refused(folder)


def test_adapters(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert says(refused(folder), "adapter", "merge")


def test_cut_off_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:4000])
    assert says(refused(folder), str(folder), "cannot load")


def test_weights_without_a_head(folder):
    file = folder / "model.safetensors"
    save_file({n: t for n, t in load_file(file).items() if "classifier" not in n}, file, {"format": "pt"})
    assert says(refused(folder), "no fitting classifier.bias and 1 more", "edgekd teach")


def test_weights_of_other_labels(folder):
    edit(folder, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    assert "no fitting classifier.bias" in refused(folder)


@pytest.mark.parametrize("architectures", [None, [], ["BertModel"], ["BertForMaskedLM"]])
def test_encoders_are_no_teachers(folder, architectures):
    edit(folder, architectures=architectures)
    assert says(refused(folder), "config.json", "edgekd teach")


def test_several_labels_a_text(folder):
    assert load_teacher(folder).task == "text-classification"
    edit(folder, problem_type="multi_label_classification")
    assert load_teacher(folder).task == "multi-label-classification"


def test_one_output_is_a_regression(tmp_path):
    folder = save(make_teacher(labels=1), tmp_path, names=["score"])
    found = load_teacher(folder)
    assert (found.problem, found.task, found.labels) == ("regression", "text-regression", ("score",))


def test_a_regression_of_several_values(folder):
    edit(folder, problem_type="regression")
    assert says(refused(folder), "config.json", "only one can be taught")


def test_broken_config(folder):
    file = folder / "config.json"
    text = file.read_text()
    file.write_text(text.replace("{", '{\n"a": ,', 1))
    assert says(refused(folder), f"{file}, line 2", "not valid JSON")
    file.write_text("[]")
    assert "must hold a JSON object" in refused(folder)
    file.write_bytes(b'{"a": "\xff"}')
    assert "not UTF-8" in refused(folder)


@pytest.mark.parametrize("change", [{"model_type": "nonsense"}, {"hidden_size": "wide"}, {"model_type": None}])
def test_configs_that_transformers_refuses(folder, change):
    edit(folder, **change)
    assert says(refused(folder), str(folder), "cannot load")


def test_labels_that_cannot_be(folder):
    edit(folder, id2label={str(i): name for i, name in enumerate(["a", "b", "a", "c", "d"])})
    assert "'a' twice" in refused(folder)
    edit(folder, id2label={str(i): f"c{i}" for i in range(1, 6)})
    assert "0 to 4" in refused(folder)


def test_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refused(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json is broken" in refused(folder)


def test_a_tokenizer_of_another_model(folder):
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.add_tokens([f"new{i}" for i in range(20)])
    made.save(str(folder / "tokenizer.json"))
    assert says(refused(folder), "ids up to 74", "60 word embeddings")


CODE = """
import transformers as hf
class MyConfig(hf.BertConfig):
    model_type = "my-own"
class MyModel(hf.BertForSequenceClassification):
    config_class = MyConfig
"""


def test_custom_code_needs_the_flag(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "own.py").write_text(CODE)
    auto = {"AutoConfig": "own.MyConfig", "AutoModelForSequenceClassification": "own.MyModel"}
    edit(folder, model_type="my-own", auto_map=auto)
    assert says(refused(folder), "own code", "--trust-remote-code")
    teacher = load_teacher(folder, trust_remote_code=True)
    assert type(teacher.model).__name__ == "MyModel"
    assert teacher.hosted is None
    assert teacher.width == 32


def test_a_hub_id_is_fetched_without_pickle_or_code(folder, monkeypatch):
    asked = {}

    def fetch(name, allow_patterns):
        asked[name] = allow_patterns
        return str(folder)

    monkeypatch.setattr("edgekd.models.folder.snapshot_download", fetch)
    assert load_teacher("someone/bert").labels == tuple(NAMES)
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in asked["someone/bert"])


def test_the_hub_is_out_of_reach(monkeypatch):
    def fail(error):
        def fetch(*args, **settings):
            raise error

        monkeypatch.setattr("edgekd.models.folder.snapshot_download", fetch)

    fail(LocalEntryNotFoundError("no\nconnection"))
    assert says(refused("someone/bert", error=UnavailableError), "someone/bert", "local folder")
    fail(RepositoryNotFoundError("404", response=Mock(headers={})))
    assert "neither a folder" in refused("someone/bert")


@pytest.mark.parametrize("head", ["sequence", "token"])
@pytest.mark.parametrize("kind", ["encoder", "masked", "sequence"])
def test_an_encoder_gets_a_new_head(tmp_path, kind, head):
    encoder = make_teacher("electra", kind)
    save(encoder, tmp_path, names=None)
    torch.manual_seed(1)
    model = load_encoder(tmp_path, ["x", "y", "z"], head)
    assert type(model).__name__ == f"Electra{module._SUFFIX[head]}"
    assert model.config.id2label == {0: "x", 1: "y", 2: "z"}
    assert model.config.label2id == {"x": 0, "y": 1, "z": 2}
    batch = make_batch(model)
    assert model(**batch).logits.shape[-1] == 3
    torch.testing.assert_close(
        model.base_model(**batch).last_hidden_state, encoder.base_model(**batch).last_hidden_state
    )
    torch.manual_seed(1)
    again = load_encoder(tmp_path, ["x", "y", "z"], head)
    assert torch.equal(model(**batch).logits, again(**batch).logits)
    save(model, tmp_path / "taught", names=None)
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "taught")
    assert load_teacher(tmp_path / "taught").labels == ("x", "y", "z")


def test_an_encoder_whose_weights_do_not_fit(tmp_path):
    save(make_teacher(head="encoder"), tmp_path, names=None)
    edit(tmp_path, num_hidden_layers=4)
    with pytest.raises(UsageError, match=r"no fitting bert\.encoder\.layer\.3"):
        load_encoder(tmp_path, ["x", "y"], "sequence")


def test_encoders_are_checked_like_teachers(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        load_encoder(tmp_path / "none", ["x", "y"], "sequence")
    save(make_teacher(head="encoder"), tmp_path, names=None, tokenizer=False)
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        load_encoder(tmp_path, ["x", "y"], "sequence")


@pytest.mark.parametrize(
    "name",
    ["bert.encoder.layer.0.adapters.down.weight", "bert.encoder.layer.7.output.dense.weight", "prefix.weight"],
)
def test_weights_that_transformers_does_not_use_are_refused(folder, name):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {name: torch.ones(2, 2)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=f"transformers does not use {name} of the weights"):
        load_teacher(folder)


@pytest.mark.parametrize("name", ["bert.embeddings.position_ids", "cls.predictions.bias", "bert.pooler.extra.weight"])
def test_weights_that_no_model_computes_with_are_left_out(folder, name):
    weights, before = load_file(folder / "model.safetensors"), load_teacher(folder).model.state_dict()
    # Beside it, then over it: safetensors before 0.8 maps what it has read, and `before` would change with the file.
    save_file(weights | {name: torch.ones(2)}, folder / "new.safetensors", {"format": "pt"})
    (folder / "new.safetensors").replace(folder / "model.safetensors")
    after = load_teacher(folder).model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_vocabulary_alone_makes_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    assert load_teacher(folder).tokenizer.encode("w3 W4").ids == [2, 8, 9, 3]


def test_positions_before_the_padding_row_are_not_counted(tmp_path):
    config = hf.MPNetConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=40, pad_token_id=1,
    )  # fmt: skip
    hf.MPNetModel(config).save_pretrained(tmp_path)
    assert module.encoder_max_length(tmp_path) == 38


def test_a_folder_one_level_up_names_the_one_inside(tmp_path, tiny_teacher):
    shutil.copytree(tiny_teacher, tmp_path / "run" / "checkpoint-10")
    for load in (load_teacher, model_folder):
        with pytest.raises(UsageError, match=r"run has no config\.json: .*checkpoint-10 has one"):
            load(tmp_path / "run")


def test_special_tokens_that_are_split_are_kept_in_no_bundle(tmp_path, tiny_teacher):
    folder = shutil.copytree(tiny_teacher, tmp_path / "t")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"split_special_tokens": True}))
    with pytest.raises(UsageError, match=r"tokenizer_config\.json: split_special_tokens is kept in no"):
        load_teacher(folder)
