import json
import os
import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest

from edgekd.errors import UnavailableError, UsageError
from edgekd.runtime import config as config_module
from edgekd.runtime import load
from edgekd.runtime import model as model_module
from edgekd.settings import task as specifications

from .conftest import VOCABULARY, write_config, write_model


def test_predict_keeps_the_order_and_ignores_padding(sentiment):
    model = load(sentiment)
    texts = ["good", "bad bad", "good good bad good", "bad"]
    expected = ["positive", "negative", "positive", "negative"]
    assert [answer["label"] for answer in model.predict(texts, batch_size=2)] == expected
    np.testing.assert_allclose(model.logits(texts, batch_size=3), [[0, 2], [4, 0], [2, 6], [2, 0]])
    one = model.predict("good", all_scores=True)
    assert one[0]["score"] == pytest.approx(np.exp(2) / (1 + np.exp(2)))
    assert set(one[0]["scores"]) == {"negative", "positive"}
    assert model.predict([]) == []
    assert model.provider == "CPUExecutionProvider"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_no_answer(sentiment, workers):
    model = load(sentiment)
    texts = [" ".join(["good"] * (i % 5) + ["bad"] * (i % 3)) or "jazz" for i in range(50)]
    assert model.predict(texts, batch_size=4, workers=workers, all_scores=True) == [
        model.predict(text, all_scores=True)[0] for text in texts
    ]


def test_long_texts_are_cut_and_counted(sentiment):
    model = load(sentiment)
    assert model.predict(["good " * 6, "bad"])[0]["label"] == "positive"
    assert model.truncated == 0
    np.testing.assert_allclose(model.logits(["good " * 6 + "bad " * 9]), [[0, 12]])
    assert model.truncated == 1


def test_pairs(sentiment):
    write_config(sentiment, ["negative", "positive"], {"name": "text-classification", "pair": True})
    model = load(sentiment)
    assert model.predict([("jazz", "good"), ("bad", "jazz")])[1]["label"] == "negative"
    with pytest.raises(UsageError, match="text 0: this model takes pairs"):
        model.predict(["good"])
    with pytest.raises(UsageError, match="text 1: this model takes pairs"):
        model.predict([("a", "b"), ("a", "b", "c")])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([("a", "b")], "text 0: this model takes single texts"),
        (["a", 3], "text 1: not a string but int"),
        (None, "a list of texts, not NoneType"),
        (5, "a list of texts, not int"),
        ({"text": "good"}, "a list of texts, not dict"),
    ],
)
def test_wrong_texts_are_named(sentiment, texts, message):
    with pytest.raises(UsageError, match=message):
        load(sentiment).predict(texts)


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one_are_refused(sentiment, number):
    model = load(sentiment)
    with pytest.raises(UsageError, match=f"batch_size {number}: at least 1"):
        model.predict(["good", "bad"], batch_size=number)
    with pytest.raises(UsageError, match=f"workers {number}: at least 1"):
        model.predict(["good", "bad"], workers=number)


def test_the_runtime_knows_every_task():
    """Its own list, since that of the specifications brings pydantic."""
    assert {name: kind.output for name, kind in specifications.TASKS.items()} == config_module._OUTPUTS


def test_a_task_of_the_future_is_refused(sentiment):
    write_config(sentiment, ["negative", "positive"], {"name": "haiku", "pair": False})
    with pytest.raises(UsageError, match="no task 'haiku' is known"):
        load(sentiment)


def test_a_task_that_says_what_its_logits_mean_needs_no_name_here(sentiment):
    write_config(sentiment, ["negative", "positive"], {"name": "haiku", "pair": False}, output="classes")
    assert load(sentiment).predict(["good"])[0]["label"] == "positive"


def test_half_a_surrogate_pair_is_served(sentiment):
    assert load(sentiment).predict(["good \ud800 x"])[0]["label"] == "positive"


def test_spans(slots):
    model = load(slots)
    text = "Playing  Jazz in Paris."
    first, second = model.predict([text, "bad"])
    assert [(s["label"], s["start"], s["end"], s["text"]) for s in first["spans"]] == [
        ("genre", 9, 16, "Jazz in"),
        ("city", 17, 22, "Paris"),
    ]
    score = np.exp(9) / (np.exp(9) + np.exp(3) + 2)
    assert first["spans"][0]["score"] == pytest.approx(score, rel=1e-6)
    assert second == {"spans": []}
    assert model.logits([text, "bad"]).shape == (6, 4)
    # Eight tokens hold [CLS], "playing" in two pieces and four more words.
    cut = model.predict("playing . . . jazz jazz")[0]["spans"]
    assert [(s["start"], s["end"]) for s in cut] == [(14, 18)]


def test_timed_predict_gives_three_durations(sentiment):
    answers, *seconds = load(sentiment).timed_predict(["good"])
    assert answers[0]["label"] == "positive"
    assert len(seconds) == 3
    assert all(0 <= value < 5 for value in seconds)


def test_token_types_the_tokenizer_lacks_are_zeros_and_threads_can_be_set(sentiment):
    assert load(sentiment, threads=2).predict(["good", "bad"])[1]["label"] == "negative"
    with pytest.raises(UsageError, match="threads is 0"):
        load(sentiment, threads=0)


def test_session_options_come_from_the_bundle(sentiment):
    task = {"name": "text-classification", "pair": False}
    session = {
        "graph_level": "basic",
        "spinning": True,
        "arena": False,
        "providers": ["CPUExecutionProvider"],
    }
    write_config(sentiment, ["negative", "positive"], task, session=session)
    assert load(sentiment).predict("good")[0]["label"] == "positive"
    write_config(sentiment, ["negative", "positive"], task, session={"graph_level": "most"})
    with pytest.raises(UsageError, match="graph_level 'most' is none of"):
        load(sentiment)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.onnx"])
def test_a_missing_file_is_named(sentiment, name):
    (sentiment / name).unlink()
    with pytest.raises(UsageError, match=f"{name}: missing"):
        load(sentiment)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no 'edgekd' key"),
        ('{"model_type": "bert"}', "no 'edgekd' key"),
        ('{"edgekd": {"schema_version": 2}}', "schema version 2, but this edgekd reads 1"),
        ('{"edgekd": {"schema_version": 1}}', "key 'id2label' is missing"),
        (
            '{"id2label": {"0": "a", "2": "b"}, "edgekd": {"schema_version": 1}}',
            "2 labels but no id 1: count them from 0",
        ),
        ('{"id2label": {"0": "a"}, "edgekd": {"schema_version": 1, "task": "x"}}', "broken .*write the bundle again"),
    ],
)
def test_a_wrong_config_is_one_line(sentiment, config, message):
    (sentiment / "config.json").write_text(config)
    with pytest.raises(UsageError, match=message) as error:
        load(sentiment)
    assert "\n" not in str(error.value)


def test_a_corrupt_model_is_one_line(sentiment):
    (sentiment / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(
        UsageError, match=r"model\.onnx: onnxruntime cannot load it: .*; copy the bundle again"
    ) as error:
        load(sentiment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["opset", "ir_version", "op_type"])
def test_a_graph_of_the_future_asks_for_a_newer_onnxruntime(sentiment, field):
    model = onnx.load(sentiment / "model.onnx")
    if field == "opset":
        model.opset_import[0].version = 99
    elif field == "ir_version":
        model.ir_version = 99
    else:
        model.graph.node[0].op_type = "NotYetInvented"
    (sentiment / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=r"newer than this onnxruntime .*: install a newer one") as error:
        load(sentiment)
    assert "\n" not in str(error.value)
    assert "/onnxruntime_src/" not in str(error.value)


def test_a_truncated_model_is_one_line(sentiment):
    whole = (sentiment / "model.onnx").read_bytes()
    (sentiment / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"model\.onnx: onnxruntime cannot load it: .*; copy the bundle again"):
        load(sentiment)


def test_labels_and_logits_must_be_as_many(sentiment):
    write_model(sentiment / "model.onnx", np.zeros((len(VOCABULARY), 3)), "sequence")
    with pytest.raises(UsageError, match=r"gives 3 logits, config\.json names 2 labels"):
        load(sentiment)


def test_an_absent_provider_is_unavailable(sentiment):
    with pytest.raises(UnavailableError, match="MissingProvider is not in this onnxruntime"):
        load(sentiment, provider="MissingProvider")


def test_an_absent_onnxruntime_is_unavailable(sentiment, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        UnavailableError, match=r"onnxruntime is needed to run a bundle: pip install 'edgekd\[runtime\]'"
    ):
        load(sentiment)


def test_the_runtime_imports_only_what_it_needs(sentiment):
    code = (
        "import sys, json; before = set(sys.modules); import edgekd.runtime\n"
        "assert 'onnxruntime' not in sys.modules\n"
        f"edgekd.runtime.load({str(sentiment)!r}).predict(['good'])\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = {"edgekd", "numpy", "onnxruntime", "tokenizers", *sys.stdlib_module_names}
    loaded = set(json.loads(run.stdout))
    for name in ("torch", "pydantic", "transformers", "onnx", "pandas"):
        assert name not in loaded
    edgekd = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, edgekd.runtime; print(*[n for n in sys.modules if n.startswith('edgekd')])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(
        name in ("edgekd", "edgekd.errors", "edgekd.onnx_session", "edgekd.reading")
        or name.startswith("edgekd.runtime")
        for name in edgekd.stdout.split()
    )
    brought = {name for name in loaded if not name.startswith("_")} - allowed
    assert brought <= {"huggingface_hub", "mkl", "cython_runtime"}


def test_a_model_is_sent_to_another_process_by_its_folder(sentiment):
    again = pickle.loads(pickle.dumps(load(sentiment, threads=2)))
    assert again.predict("good")[0]["label"] == "positive"
    with pytest.raises(TypeError, match="was not loaded from a folder"):
        pickle.dumps(model_module.Model(again.config, again._tokenizer, again._session, 1))


def test_a_text_may_be_given_as_its_words(slots):
    model = load(slots)
    plain, words = model.predict("play jazz")[0]["spans"], model.predict([["play", "jazz"]])[0]["spans"]
    assert [{**span, "words": [1, 2]} for span in plain] == words
    assert words[0]["text"] == "jazz"


def test_plain_text_is_split_as_the_bundle_says(slots):
    config = json.loads((slots / "config.json").read_text())
    config["edgekd"]["words"] = {"left": "#", "right": "", "together": False}
    (slots / "config.json").write_text(json.dumps(config))
    assert load(slots).config.words.words("play #jazz!") == ["play", "#jazz", "!"]


def test_no_more_threads_than_cpus(sentiment):
    assert load(sentiment, threads=100_000).threads <= os.cpu_count()
