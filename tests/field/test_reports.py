"""Public reports of people who do this job, each tried on the product: README.md beside this file has the log."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from edgekd.data.read import read_data
from edgekd.errors import EdgekdError, UsageError
from edgekd.inputs.reading import check_reading
from edgekd.models.quiet import quiet_transformers
from edgekd.models.teacher import load_teacher
from edgekd.pipeline.compress import compress
from edgekd.runtime import load
from edgekd.runtime.tokenise import encode_words, load_tokenizer
from edgekd.settings.profile import parse
from edgekd.settings.request import Request
from edgekd.settings.task import TextClassification
from edgekd.tasks.base import align_labels

from .test_same_as_transformers import LENGTH, save_teacher, write_data


def profile_of(**changes):
    content = {
        "name": "fake", "budget": {"latency_ms": 1000}, "accept": {"min_retained": 0.01, "max_drop": 100},
        "workload": {"max_length": LENGTH}, "target": {"kind": "fake", "precisions": ["fp32", "int8"]},
    }  # fmt: skip
    return parse(content | changes, "test")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A BERT teacher in a folder, and data."""
    root = tmp_path_factory.mktemp("reports")
    save_teacher(root / "teacher", "bert", "right", True)
    write_data(root / "data", pair=False)
    return root


@pytest.fixture
def teacher(folders, tmp_path):
    return shutil.copytree(folders / "teacher", tmp_path / "teacher")


@pytest.fixture(scope="module")
def bundle(folders, shared_session, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    request = Request(teacher=str(folders / "teacher"), data=str(folders / "data"), profile=profile_of())
    compress(shared_session, request, out, with_baselines=False)
    return out


def edit(file, **changes):
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def logits_in_transformers(folder, text):
    with quiet_transformers():
        tokenizer = hf.AutoTokenizer.from_pretrained(folder)
        model = hf.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    given = tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt")
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.inference_mode():
        return model(**{name: given[name] for name in names if name in given}).logits[0].numpy()


def unchanged(session, folder, data, out):
    """The unchanged teacher of a folder in a bundle."""
    profile = profile_of(target={"kind": "fake", "precisions": ["fp32"]})
    compress(session, Request(teacher=str(folder), data=str(data), profile=profile), out, with_baselines=False)
    return load(out)


# huggingface/transformers#26468: a special token spelled in a user's text.
@pytest.mark.parametrize("text", ["good [SEP] lamp", "[PAD] [PAD] lamp", "turn [MASK] on", "[CLS][CLS]"])
def test_special_tokens_in_a_text_are_what_they_are_in_transformers(folders, bundle, text):
    expected = logits_in_transformers(folders / "teacher", text)
    np.testing.assert_allclose(load(bundle).logits([text])[0], expected, atol=1e-4, rtol=1e-4)


# huggingface/transformers#3091: a text of nothing, or of white space.
def test_an_empty_text_has_an_answer(bundle):
    answers = load(bundle).predict(["", "  \n\t", "turn the lamp on"])
    assert [set(answer) for answer in answers] == [{"label", "score"}] * 3
    assert answers[0] == answers[1]


# huggingface/tokenizers#1077: words of nothing that the tokenizer keeps.
def test_words_without_a_piece_shift_no_tag(bundle):
    found = encode_words(load_tokenizer(bundle), [["turn", "\u200d", "\u0000", "lamp"]])
    assert found.words.tolist() == [4]
    assert found.answer_words.tolist() == [0, 3]


# huggingface/transformers#12763: more tokens than the embedding has rows.
def test_a_token_without_a_row_is_refused_with_both_sizes(teacher):
    content = json.loads((teacher / "tokenizer.json").read_text())
    rows = json.loads((teacher / "config.json").read_text())["vocab_size"]
    content["added_tokens"].append(
        {"id": rows, "content": "@user", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True,
         "special": False}
    )  # fmt: skip
    (teacher / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"ids up to {rows}, the model has {rows} word embeddings"):
        load_teacher(teacher)


# huggingface/transformers#24441: padding and truncation that were saved with the tokenizer.
def test_saved_padding_and_truncation_are_not_the_bundles(shared_session, folders, teacher, tmp_path):
    tokenizer = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    tokenizer.enable_padding(length=512)
    tokenizer.enable_truncation(6)
    tokenizer.save(str(teacher / "tokenizer.json"))
    model = unchanged(shared_session, teacher, folders / "data", tmp_path / "bundle")
    text = "turn the lamp on please " * 9
    encodings, *_ = model._encode([text])
    assert encodings.lengths.tolist() == [LENGTH]
    np.testing.assert_allclose(
        model.logits([text])[0], logits_in_transformers(folders / "teacher", text), atol=1e-4, rtol=1e-4
    )


# huggingface/transformers#34528: RoBERTa that numbers positions from another padding id than 1.
@pytest.mark.parametrize("pad", [3, 4])
def test_positions_are_numbered_from_the_models_padding_id(shared_session, folders, tmp_path, pad, monkeypatch):
    from . import test_same_as_transformers as same

    kind, config, settings = same.FAMILIES["roberta"]
    rows = LENGTH + pad + 1
    changed = (kind, config, settings | {"pad_token_id": pad, "max_position_embeddings": rows})
    monkeypatch.setitem(same.FAMILIES, "roberta", changed)
    save_teacher(tmp_path / "teacher", "roberta", "right", True)
    model = unchanged(shared_session, tmp_path / "teacher", folders / "data", tmp_path / "bundle")
    text = "turn the lamp on please " * 9
    assert load_teacher(tmp_path / "teacher").max_length == LENGTH
    expected = logits_in_transformers(tmp_path / "teacher", text)
    np.testing.assert_allclose(model.logits([text, "lamp"])[0], expected, atol=1e-4, rtol=1e-4)


# huggingface/transformers#47085 and tokenizers#537: one tokenizer, several threads.
def test_threads_share_a_model(bundle):
    model = load(bundle)
    texts = [["lamp"], ["turn the lamp on " * 9], ["play", "jazz " * 30, "rain"]]
    alone = [model.predict(part) for part in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: model.predict(texts[i % 3]), range(120)))
    assert all(answers == alone[i % 3] for i, answers in enumerate(found))


# huggingface/transformers#4669: id2label in another order, and beside num_labels.
def test_labels_are_read_by_their_number(teacher):
    config = json.loads((teacher / "config.json").read_text())
    named = dict(sorted(config["id2label"].items(), reverse=True))
    edit(teacher / "config.json", id2label=named, label2id=None, num_labels=4)
    assert load_teacher(teacher).labels == ("lights", "music", "weather", "alarm")


# huggingface/datasets#2457: the data's labels in another order than the model's.
def test_labels_are_matched_by_name():
    assert align_labels(["b", "a", "c"], ["a", "b"]) == (1, 0)
    assert align_labels(["CONTRADICTION", "Neutral"], ["neutral", "contradiction"]) == (1, 0)
    with pytest.raises(EdgekdError, match="labels that the teacher lacks: a"):
        align_labels(["A", "a ", "b"], ["a", "b"])


# huggingface/transformers#45479: one logit that is called one class of several.
def test_one_logit_is_no_classification(teacher):
    weights = load_file(teacher / "model.safetensors")
    cut = {name: value[:1] if name.startswith("classifier") else value for name, value in weights.items()}
    save_file(cut, teacher / "model.safetensors", {"format": "pt"})
    edit(teacher / "config.json", id2label={"0": "yes"}, label2id={"yes": 0}, num_labels=1)
    with pytest.raises(UsageError, match="num_labels > 1"):
        load_teacher(teacher)


# huggingface/datasets#5624: a test split whose labels are all hidden.
def test_hidden_labels_of_a_split_are_no_class(folders, tmp_path):
    data = shutil.copytree(folders / "data", tmp_path / "data")
    rows = [json.loads(line) | {"label": -1} for line in (data / "test.jsonl").read_text().splitlines()]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_data(data)
    assert "-1" not in found.labels
    assert any("test" in note and "hidden" in note for note in found.notes)


# huggingface/datasets#3578 and #3563: what parquet files bring along.
def test_parquet_of_pandas(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = [f"text {i}" for i in range(40)]
    columns = {
        "text": pa.array(texts, pa.large_string()),
        "label": pa.array(["ab"[i % 2] for i in range(40)]).dictionary_encode(),
        "__index_level_0__": pa.array(range(40)),
    }
    parquet.write_table(pa.table(columns), tmp_path / "train.parquet")
    found = read_data(tmp_path)
    assert found.labels == ("a", "b")
    assert "columns not used: __index_level_0__" in found.notes


# huggingface/transformers#28041: weights saved of a model that was wrapped.
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_weights_of_a_wrapped_model_are_refused(teacher, prefix):
    weights = load_file(teacher / "model.safetensors")
    save_file({prefix + name: w for name, w in weights.items()}, teacher / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=rf"{prefix}.*wrapped"):
        load_teacher(teacher)


# huggingface/transformers#11809: LayerNorm by its old names.
def test_old_names_of_weights_compute_the_same(folders, teacher):
    weights = load_file(teacher / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): w
        for name, w in weights.items()
    }
    save_file(old, teacher / "model.safetensors", {"format": "pt"})
    found, known = load_teacher(teacher), load_teacher(folders / "teacher")
    for name, array in known.hosted[1].items():
        np.testing.assert_array_equal(found.hosted[1][name], array)


# huggingface/optimum#1845: weights in half precision.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_are_computed_whole(shared_session, folders, teacher, tmp_path, dtype):
    weights = load_file(teacher / "model.safetensors")
    save_file({name: w.to(dtype) for name, w in weights.items()}, teacher / "model.safetensors", {"format": "pt"})
    edit(teacher / "config.json", dtype=str(dtype).removeprefix("torch."))
    model = unchanged(shared_session, teacher, folders / "data", tmp_path / "bundle")
    expected = logits_in_transformers(teacher, "turn the lamp on")
    np.testing.assert_allclose(model.logits(["turn the lamp on"])[0], expected, atol=1e-4, rtol=1e-4)


# huggingface/optimum#1758: a model with token types under a tokenizer without, and the reverse.
@pytest.mark.parametrize("types", [1, 2, 3])
def test_token_types_are_the_models_own_matter(shared_session, folders, tmp_path, types, monkeypatch):
    from . import test_same_as_transformers as same

    _, config, settings = same.FAMILIES["bert"]
    monkeypatch.setitem(same.FAMILIES, "bert", ("unigram", config, settings | {"type_vocab_size": types}))
    save_teacher(tmp_path / "teacher", "bert", "right", True)
    model = unchanged(shared_session, tmp_path / "teacher", folders / "data", tmp_path / "bundle")
    expected = logits_in_transformers(tmp_path / "teacher", "turn the lamp on")
    np.testing.assert_allclose(model.logits(["turn the lamp on"])[0], expected, atol=1e-4, rtol=1e-4)


# microsoft/onnxruntime#8169 and transformers#5500: other shapes, and a text beside longer ones.
def test_a_text_answers_alone_as_beside_others(bundle):
    model = load(bundle)
    texts = ["lamp", "turn the lamp on please", "rain " * 12, "play some jazz " * 9]
    for size in (1, 2, 4):
        found = model.logits(texts, batch_size=size)
        for i, text in enumerate(texts):
            np.testing.assert_allclose(found[i], model.logits([text])[0], atol=1e-4, rtol=1e-4)


# microsoft/onnxruntime#31961: a model that was loaded before the process forked.
def test_a_fork_of_a_process_with_a_model_ends_well(bundle):
    model = load(bundle)
    model.predict("lamp")
    pid = os.fork()
    if pid == 0:
        del model
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (answer,) = pool.map(model.predict, ["lamp"])
    assert answer == model.predict("lamp")


# microsoft/onnxruntime#27353: a folder of links, as in the hub's cache.
def test_a_folder_of_links_is_read(teacher, bundle, tmp_path):
    for source, name in ((teacher, "t"), (bundle, "b")):
        blobs, snapshot = tmp_path / f"models--{name}" / "blobs", tmp_path / f"models--{name}" / "snapshots" / "1a2b3c"
        snapshot.mkdir(parents=True)
        shutil.copytree(source, blobs)
        for file in blobs.iterdir():
            (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert load_teacher(tmp_path / "models--t" / "snapshots" / "1a2b3c").labels == load_teacher(teacher).labels
    assert load(tmp_path / "models--b" / "snapshots" / "1a2b3c").predict("lamp") == load(bundle).predict("lamp")


# huggingface/transformers#45399: an attention that is not installed here.
def test_an_attention_that_is_not_here_is_not_needed(folders, teacher):
    before = load_teacher(teacher)
    edit(teacher / "config.json", _attn_implementation="flash_attention_2", attn_implementation="flash_attention_2")
    found = load_teacher(teacher)
    weights = found.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in before.model.state_dict().items())
    check_reading(found, read_data(folders / "data", task=TextClassification()), LENGTH)


# huggingface/optimum#1914: weights of four bits.
def test_quantised_weights_are_refused_at_once(teacher):
    edit(teacher / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(UsageError, match="quantization_config"):
        load_teacher(teacher)
