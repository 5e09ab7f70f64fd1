"""export/triton/client.py against a small server of Triton's protocol (KServe v2, binary tensors), and without one."""

import json
import re
import shutil
import subprocess
import sys
import threading
import types
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime
import pytest

from edgekd.errors import UsageError
from edgekd.export.deploy import triton_repository
from edgekd.runtime import load
from edgekd.settings.task import MultiLabelClassification, TextClassification, TextRegression, TokenClassification

from .conftest import LABELS, TEXTS, command, environment, free_port, module, write_bundle

TYPES = {"INT64": np.int64, "FP32": np.float32}


class Refusal(Exception):
    """What the server answers with status 400."""


class Served:
    """A model of a repository: its configuration as Triton tells it, and its answers."""

    def __init__(self, folder):
        text = (folder / "config.pbtxt").read_text()
        inputs = re.findall(r'input \[ \{ name: "(\w+)" data_type: (\w+) dims: \[ -1 \] \} \]', text)
        self.name = folder.name
        self.config = {
            "name": folder.name,
            "max_batch_size": int(re.search(r"max_batch_size: (\d+)", text)[1]),
            "input": [{"name": name, "data_type": kind, "dims": [-1]} for name, kind in inputs],
        }
        self.session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        self.shapes = []

    def find(self, name):
        if name != self.name:
            raise Refusal(f"Request for unknown model: '{name}' is not found")

    def infer(self, feed):
        declared = [tensor["name"] for tensor in self.config["input"]]
        if sorted(feed) != sorted(declared):
            raise Refusal(f"expected inputs {declared}, got {list(feed)}")
        (shape,) = {values.shape for values in feed.values()}
        if shape[0] > self.config["max_batch_size"]:
            raise Refusal(f"batch-size must be <= {self.config['max_batch_size']}")
        self.shapes.append(shape)
        return self.session.run(["logits"], feed)[0]


@contextmanager
def server(served):
    """The model over HTTP; gives host:port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer("config", lambda: (json.dumps(served.config).encode(), {}))

        def do_POST(self):
            self.answer("infer", self.infer)

        def answer(self, what, content):
            found = re.fullmatch(rf"/?v2/models/([^/]+)/{what}", self.path.removeprefix("/"))
            try:
                served.find(found[1])
                status, (body, headers) = 200, content()
            except Refusal as error:
                status, body, headers = 400, json.dumps({"error": str(error)}).encode(), {}
            self.send_response(status)
            for name, value in (headers | {"Content-Length": len(body), "Content-Type": "application/json"}).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def infer(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            size = int(self.headers["Inference-Header-Content-Length"])
            request, rest, feed = json.loads(body[:size]), body[size:], {}
            assert request["parameters"] == {"binary_data_output": True}
            for tensor in request["inputs"]:
                length = tensor["parameters"]["binary_data_size"]
                values = np.frombuffer(rest[:length], TYPES[tensor["datatype"]])
                feed[tensor["name"]], rest = values.reshape(tensor["shape"]), rest[length:]
            assert not rest
            logits = served.infer(feed)
            about = {"name": "logits", "datatype": "FP32", "shape": logits.shape}
            about["parameters"] = {"binary_data_size": logits.nbytes}
            head = json.dumps({"model_name": served.name, "model_version": "1", "outputs": [about]}).encode()
            return head + logits.tobytes(), {"Inference-Header-Content-Length": len(head)}

        def log_message(self, *words):
            """Nothing on stderr."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()


class Tensor:
    """tritonclient's InferInput, as far as the client uses it."""

    def __init__(self, name, shape, kind):
        self.name, self.shape, self.kind = name, shape, kind

    def set_data_from_numpy(self, values):
        assert list(values.shape) == self.shape
        assert values.dtype == TYPES[self.kind]
        self.values = values


@pytest.fixture
def client(monkeypatch):
    """client.py as a module, and what makes its tritonclient answer from a repository without a network."""

    def serve(served):
        class Server:
            def __init__(self, url):
                self.url = url

            def get_model_config(self, name):
                served.find(name)
                return served.config

            def infer(self, name, inputs):
                logits = served.infer({tensor.name: tensor.values for tensor in inputs})
                return types.SimpleNamespace(as_numpy={"logits": logits}.get)

        fakes = {name: types.ModuleType(name) for name in ("tritonclient", "tritonclient.http", "tritonclient.utils")}
        fakes["tritonclient"].http = fakes["tritonclient.http"]
        fakes["tritonclient.http"].InferenceServerClient, fakes["tritonclient.http"].InferInput = Server, Tensor
        fakes["tritonclient.utils"].InferenceServerException = Refusal
        for name, fake in fakes.items():
            monkeypatch.setitem(sys.modules, name, fake)

    loaded = module("triton", "client")
    loaded.serve = serve
    return loaded


def classifier_of(client, tmp_path, bundle):
    """A classifier on the repository that is made of a bundle, and what serves it."""
    folder = triton_repository(bundle, tmp_path / "models")
    served = Served(folder)
    client.serve(served)
    return client.Classifier("host:1", folder.name, folder), served


def made(tmp_path, task, kind="sequence"):
    (tmp_path / "work").mkdir()
    write_bundle(tmp_path / "work", tmp_path / "other", kind, task)
    # In INT8 the padding that Triton wants would change the scale of the activations, and so the scores.
    shutil.copyfile(tmp_path / "other" / "onnx" / "model.onnx", tmp_path / "other" / "model.onnx")
    return tmp_path / "other"


def test_labels_are_the_runtimes_and_texts_are_sent_in_batches_of_one_length(client, tmp_path, bundle, expected):
    classifier, served = classifier_of(client, tmp_path, bundle)
    answers = classifier.predict(TEXTS * 3)
    assert [answer["label"] for answer in answers] == expected * 3
    assert served.shapes == [(32, 16), (4, 16)]


def test_padding_goes_up_to_16_tokens_and_never_beyond_what_the_model_takes(client, tmp_path, bundle):
    classifier, served = classifier_of(client, tmp_path, bundle)
    classifier.max_length = 40
    classifier.tokenizer.enable_truncation(40)
    for words in (3, 14, 15, 37, 50):
        classifier.predict(["rain " * words])
    assert [length for _, length in served.shapes] == [16, 16, 32, 40, 40]


@pytest.mark.parametrize(
    ("task", "texts"),
    [
        (TextClassification(pair=True), list(zip(TEXTS[:6], TEXTS[6:], strict=True))),
        (MultiLabelClassification(threshold=0.4), TEXTS),
    ],
)
def test_other_tasks_answer_as_the_runtime_does(client, tmp_path, task, texts):
    bundle = made(tmp_path, task)
    classifier, _ = classifier_of(client, tmp_path, bundle)
    for answer, wanted in zip(classifier.predict(texts), load(bundle).predict(texts), strict=True):
        found, wanted = (a.get("labels", [a]) for a in (answer, wanted))
        assert [a["label"] for a in found] == [a["label"] for a in wanted]
        assert [a["score"] for a in found] == pytest.approx([a["score"] for a in wanted], abs=1e-5)


def test_a_value_is_the_logit(client, tmp_path):
    classifier, _ = classifier_of(client, tmp_path, made(tmp_path, TextClassification()))
    classifier.task = TextRegression().model_dump()
    assert classifier.answers(np.array([[1.25], [-3]], np.float32)) == [{"value": 1.25}, {"value": -3.0}]


def test_word_tasks_have_no_client(tmp_path):
    folder = triton_repository(made(tmp_path, TokenClassification(), "token"), tmp_path / "models")
    assert sorted(path.name for path in folder.iterdir()) == ["1", "config.pbtxt", "labels.txt"]


def test_a_bundle_without_its_tokenizer_is_refused_before_anything_is_written(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"tokenizer\.json: missing"):
        triton_repository(copy, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_pair_that_is_half_is_one_line(client, tmp_path, capsys):
    classifier, _ = classifier_of(client, tmp_path, made(tmp_path, TextClassification(pair=True)))
    client.Classifier = lambda url, model: classifier
    assert client.main(["rain", "now", "please"]) == 2
    assert "3 texts: this model takes pairs" in capsys.readouterr().err
    assert client.main(["rain", "now"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in LABELS


def test_without_tritonclient_the_command_is_named(bundle, tmp_path):
    script = triton_repository(bundle, tmp_path / "models") / "client.py"
    # Isolated from any tritonclient that is installed here.
    code = f"import sys, runpy; sys.modules['tritonclient'] = None; sys.argv = ['client.py', 'rain']\n" \
        f"runpy.run_path({str(script)!r}, run_name='__main__')"  # fmt: skip
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 3
    assert 'pip install "tritonclient[http]" tokenizers' in run.stderr


@pytest.mark.slow
def test_the_real_tritonclient_gets_its_labels(bundle, expected, tmp_path):
    python = environment(tmp_path / "venv", "tritonclient[http]>=2.60", "tokenizers")
    folder = triton_repository(bundle, tmp_path / "models")
    with server(Served(folder)) as url:
        # From the repository, and from the bundle itself, whose folder has the model's name.
        for script, prefix in ((folder / "client.py", ""), (bundle / "deploy" / "triton" / "client.py", "http://")):
            lines = command(python, "-B", script, "--url", prefix + url, *TEXTS).splitlines()
            assert [json.loads(line)["label"] for line in lines] == expected
        for flags, line in (
            (("--url", url, "--model", "other"), "Request for unknown model: 'other' is not found"),
            (("--url", f"127.0.0.1:{free_port()}"), "refused"),
        ):
            run = subprocess.run([python, folder / "client.py", *flags, "rain"], capture_output=True, text=True)
            assert run.returncode == 4
            assert run.stderr.startswith("error: ")
            assert line in run.stderr
            assert len(run.stderr.splitlines()) == 1
    (folder / "config.json").unlink()
    run = subprocess.run([python, folder / "client.py", "rain"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "config.json: missing; keep tokenizer.json and config.json beside" in run.stderr
