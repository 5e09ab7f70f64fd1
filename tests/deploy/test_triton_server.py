"""A real Triton server on the repository that `edgekd export --triton` writes.

The tritonserver is the one that the wheel nvidia-pytriton carries. That build has no onnxruntime backend, so its Python
backend stands in: one word of config.pbtxt is exchanged, and a model.py runs the same file with onnxruntime. Inputs,
outputs, batching and labels are then the real server's reading of our configuration.
"""

import json
import os
import shutil
import subprocess
import sysconfig
import time
import urllib.request

import pytest

from edgekd.export.deploy import triton_repository
from edgekd.runtime import load

from .conftest import LABELS, WORDS, command, environment, free_port

BACKEND = """
import os
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        file = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.names = [tensor.name for tensor in self.session.get_inputs()]

    def execute(self, requests):
        answers = []
        for request in requests:
            feed = {name: pb.get_input_tensor_by_name(request, name).as_numpy() for name in self.names}
            (logits,) = self.session.run(["logits"], feed)
            answers.append(pb.InferenceResponse([pb.Tensor("logits", logits.astype(np.float32))]))
        return answers
"""
# Asks for names instead of logits, as the classification extension of the protocol does.
NAMES = """
import json, sys
import numpy as np
import tritonclient.http as triton
url, model = sys.argv[1:]
server = triton.InferenceServerClient(url)
inputs = []
for tensor in server.get_model_config(model)["input"]:
    inputs.append(triton.InferInput(tensor["name"], [1, 16], "INT64"))
    inputs[-1].set_data_from_numpy(np.ones((1, 16), np.int64))
best = server.infer(model, inputs, outputs=[triton.InferRequestedOutput("logits", class_count=1)])
print(json.dumps(best.as_numpy("logits").reshape(-1)[0].decode()))
"""


def texts(count):
    """Different texts of 1 to 12 words."""
    return [" ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(1 + i % 12)) for i in range(count)]


def ready(url, running, log):
    """Waits for the server; skips where this machine cannot run it."""
    for _ in range(120):
        if running.poll() is not None:
            pytest.skip(f"tritonserver does not run here: {log.read_text(errors='replace').strip()[-300:]}")
        try:
            with urllib.request.urlopen(f"http://{url}/v2/health/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    pytest.fail(log.read_text(errors="replace")[-2000:])


@pytest.mark.slow
def test_200_answers_are_the_runtimes(bundle, tmp_path):
    python = environment(tmp_path / "venv", "nvidia-pytriton==0.7.0", "onnxruntime", "numpy", "tokenizers")
    home = tmp_path / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    server = home / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    if not (server / "bin" / "tritonserver").is_file() or not stub.is_file():
        pytest.skip("this wheel has no tritonserver for this Python")

    # The client pads and batches, which moves the scores of INT8.
    exact = shutil.copytree(bundle, tmp_path / "intents")
    shutil.copyfile(exact / "onnx" / "model.onnx", exact / "model.onnx")
    folder = triton_repository(exact, tmp_path / "models")
    config = (folder / "config.pbtxt").read_text()
    assert config.count('backend: "onnxruntime"') == 1
    (folder / "config.pbtxt").write_text(config.replace('backend: "onnxruntime"', 'backend: "python"'))
    (folder / "1" / "model.py").write_text(BACKEND)

    url, log = f"127.0.0.1:{free_port()}", tmp_path / "log.txt"
    stub.chmod(0o755)
    stub.rename(server / "backends" / "python" / stub.name)
    libraries = f"{home / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
    flags = ("--http-address", "127.0.0.1", "--http-port", url.partition(":")[2], "--allow-grpc", "false",
             "--allow-metrics", "false", "--backend-directory", server / "backends")  # fmt: skip
    with log.open("w") as out, subprocess.Popen(
        [server / "bin" / "tritonserver", "--model-repository", tmp_path / "models", *flags],
        stdout=out, stderr=out, env=os.environ | {
            "LD_LIBRARY_PATH": libraries, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(home),
        },
    ) as running:  # fmt: skip
        try:
            ready(url, running, log)
            asked = texts(200)
            lines = command(python, "-B", folder / "client.py", "--url", url, *asked).splitlines()
            found = [json.loads(line)["label"] for line in lines]
            (tmp_path / "names.py").write_text(NAMES)
            name = json.loads(command(python, tmp_path / "names.py", url, folder.name))
        finally:
            running.terminate()
            running.wait(30)

    wanted = load(exact).predict(asked)
    assert found == [answer["label"] for answer in wanted]
    assert set(found) == set(LABELS)
    assert name.split(":")[-1] in LABELS
