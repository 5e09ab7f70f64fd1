"""The clients in Node: plain HTTP to the serving process, and transformers.js on the bundle itself."""

import json
import shutil

import pytest

from .conftest import TEXTS, command, need, npm_install, process


def test_the_http_client_gives_the_runtimes_labels_and_the_servers_errors(bundle, expected, tmp_path):
    (node,) = need("node")
    script = tmp_path / "ask.mjs"
    script.write_text(
        f"import {{ predict }} from {json.dumps(str(bundle / 'deploy/node/client.mjs'))};\n"
        "const [url, texts] = [process.argv[2], JSON.parse(process.argv[3])];\n"
        "const answers = await predict(url, texts);\n"
        "const refused = await predict(url, [3]).catch((error) => ({ status: error.status, line: error.message }));\n"
        "console.log(JSON.stringify({ labels: answers.map((answer) => answer.label), refused }));\n"
    )
    with process(bundle) as (_, port):
        said = json.loads(command(node, script, f"http://127.0.0.1:{port}", json.dumps(TEXTS)))
        line = command(node, bundle / "deploy/node/client.mjs", "--url", f"http://127.0.0.1:{port}", "turn on the lamp")
    assert said["labels"] == expected
    assert said["refused"] == {"status": 422, "line": "text 0: not a string but int"}
    assert json.loads(line)["label"] == expected[0]


@pytest.mark.slow
def test_transformers_js_gives_the_runtimes_labels(bundle, expected, tmp_path):
    (node,) = need("node")
    copy = shutil.copytree(bundle, tmp_path / "my-intents")
    npm_install(copy / "deploy" / "node")
    lines = command(node, "classify.mjs", *TEXTS, cwd=copy / "deploy" / "node").splitlines()
    answers = [json.loads(line)["answer"][0] for line in lines]
    assert [answer["label"] for answer in answers] == expected
    # The INT8 file was run, not the FP32 one, and the long text was cut where the runtime cuts it.
    from edgekd.runtime import load

    scores = [answer["score"] for answer in load(bundle).predict(TEXTS, batch_size=1)]
    assert [answer["score"] for answer in answers] == pytest.approx(scores, abs=1e-3)
