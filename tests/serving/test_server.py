"""The serving process: what it answers, what it refuses, and that it survives both."""

import json
import re
import signal
import socket
import threading
import time

import pytest
from starlette.testclient import TestClient

from edgekd.runtime import load
from edgekd.serving import server as serving
from edgekd.serving.__main__ import main
from edgekd.serving.limits import Limits
from edgekd.serving.server import create_app

from ..deploy.conftest import TEXTS, process

JSON = {"content-type": "application/json"}


@pytest.fixture
def client(bundle):
    app = create_app(bundle, Limits(texts=20, characters=2000, body_bytes=100_000))
    with TestClient(app) as client:
        yield client


def ask(client, content):
    return client.post("/predict", content=content, headers=JSON)


def metric(client, name):
    text = client.get("/metrics").text
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def test_answers_are_those_of_the_runtime(client, expected):
    response = client.post("/predict", json={"texts": TEXTS})
    assert response.status_code == 200
    assert [answer["label"] for answer in response.json()["answers"]] == expected
    scores = client.post("/predict", json={"texts": TEXTS[:1], "all_scores": True}).json()["answers"][0]["scores"]
    assert sum(scores.values()) == pytest.approx(1)
    assert client.post("/predict", json={"texts": []}).json() == {"answers": []}


def test_health_says_what_is_served(client):
    health = client.get("/healthz").json()
    assert health["status"] == "ok"
    assert (health["task"], health["labels"], health["max_length"]) == ("text-classification", 4, 16)
    assert health["workers"] >= 1


def test_health_answers_to_head(client):
    response = client.head("/healthz")
    assert (response.status_code, response.content) == (200, b"")


def test_the_interface_is_described_with_the_bundles_own_labels_and_answer(client, bundle):
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["texts"]["items"] == {"type": "string"}
    answered = operation["responses"]["200"]["content"]["application/json"]
    label = answered["schema"]["properties"]["answers"]["items"]["properties"]["label"]
    assert label["enum"] == list(load(bundle).config.labels)
    assert client.post("/predict", json=body["example"]).json() == answered["example"]
    assert {"400", "408", "413", "415", "422", "429", "503"} <= set(operation["responses"])


def test_a_request_that_takes_too_long_is_told_so(bundle):
    app = create_app(bundle, Limits(seconds=0.05))
    release, whole = threading.Event(), app.state.server.model.predict

    def slow(texts, **options):
        release.wait(10)
        return whole(texts, **options)

    with TestClient(app) as client:
        app.state.server.model.predict = slow
        late = ask(client, b'{"texts": ["rain"]}')
        release.set()
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert "not answered within 0.05 s" in late.json()["error"]
        app.state.server.model.predict = whole
        # Refusals are no latencies.
        assert metric(client, "edgekd_request_seconds_count") == 0


def test_an_access_log_tells_requests_and_no_texts(bundle, capsys):
    with TestClient(create_app(bundle, access_log=True)) as client:
        ask(client, b'{"texts": ["secret"]}')
        client.get("/nowhere")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/predict", 200),
        ("GET", "/nowhere", 404),
    ]
    assert "secret" not in str(lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port 70000: a port is below 65536"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: "),
    ],
)
def test_an_address_that_cannot_be_used(bundle, arguments, words, capsys):
    assert main([str(bundle), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_port_in_use(bundle, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main([str(bundle), "--port", port]) == 2
    error = capsys.readouterr().err
    assert f"--port {port}: address already in use: name another" in error
    assert error.count("\n") == 1


def test_metrics_count_requests_texts_and_cut_texts(client):
    client.post("/predict", json={"texts": TEXTS})
    ask(client, b"{")
    assert metric(client, 'edgekd_requests_total{status="200"}') == 1
    assert metric(client, 'edgekd_requests_total{status="400"}') == 1
    assert metric(client, "edgekd_texts_total") == len(TEXTS)
    assert metric(client, "edgekd_texts_truncated") == 1
    assert metric(client, "edgekd_model_seconds_count") == 1
    assert metric(client, "edgekd_requests_open") == 0
    assert metric(client, "process_resident_memory_bytes") > 1e6


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/predict", 405), ("GET", "/", 404), ("POST", "/predict/", 404)]
)
def test_another_address_is_refused_in_the_same_form(client, method, path, status):
    response = client.request(method, path, follow_redirects=False)
    assert response.status_code == status
    assert f"{method} {path}: " in response.json()["error"]
    assert metric(client, f'edgekd_requests_total{{status="{status}"}}') == 1


def test_limits_that_refuse_all_are_refused(bundle, capsys):
    for option in ("--max-texts", "--max-waiting", "--grace-seconds"):
        assert main([str(bundle), option, "-1"]) == 2
        assert f"{option} -1: too small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"texts": ["\xff\xfe"]}', 400, "not UTF-8: byte 12"),
        (b"{", 400, "not JSON"),
        (b"[" * 50_000, 400, "not JSON"),
        (b"[]", 422, 'send {"texts"'),
        (b'{"texts": "rain"}', 422, 'send {"texts"'),
        (b'{"texts": [3]}', 422, "text 0: not a string but int"),
        (b'{"texts": [["a", "b"]]}', 422, "text 0: this model takes single texts"),
        (b'{"texts": [], "top_k": 3}', 422, "unknown field 'top_k'"),
        (b'{"texts": [], "\\ud800": 3}', 422, "unknown field"),
        (b'{"texts": [], "all_scores": 1}', 422, "all_scores is true or false"),
        (json.dumps({"texts": ["a"] * 21}).encode(), 413, "21 texts: at most 20"),
        (json.dumps({"texts": ["a", "a" * 2001]}).encode(), 413, "text 1: 2001 characters"),
        (json.dumps({"texts": ["a" * 10_000_000]}).encode(), 413, "more than 100000 bytes"),
    ],
)
def test_a_bad_body_is_one_line_and_the_server_stays_up(client, body, status, words):
    response = ask(client, body)
    assert response.status_code == status
    assert words in response.json()["error"]
    assert "\n" not in response.json()["error"]
    assert ask(client, b'{"texts": ["rain \\ud800"]}').status_code == 200


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
def test_another_content_type_is_415(client, headers):
    response = client.post("/predict", content=b'{"texts": ["rain"]}', headers=headers)
    assert response.status_code == 415
    assert "send application/json" in response.json()["error"]


def test_json_with_a_charset_is_json(client):
    response = client.post(
        "/predict", content=b'{"texts": ["rain"]}', headers={"content-type": "Application/JSON; charset=utf-8"}
    )
    assert response.status_code == 200


def test_a_fault_of_the_server_is_500_and_no_traceback(client):
    def broken(*_, **__):
        raise RuntimeError("secret path")

    server = client.app.state.server
    whole, server.model.predict = server.model.predict, broken
    response = ask(client, b'{"texts": ["rain"]}')
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    server.model.predict = whole
    assert ask(client, b'{"texts": ["rain"]}').status_code == 200


def test_more_than_may_wait_are_told_to_come_back(bundle):
    app = create_app(bundle, Limits(waiting=0))
    server, release = app.state.server, threading.Event()
    server.turns.workers = 1
    whole = server.model.predict

    def slow(texts, **options):
        release.wait(10)
        return whole(texts, **options)

    with TestClient(app) as client:
        server.model.predict = slow
        first = []
        thread = threading.Thread(target=lambda: first.append(ask(client, b'{"texts": ["rain"]}')))
        thread.start()
        while not server.turns.open:
            time.sleep(0.005)
        refused = ask(client, b'{"texts": ["rain"]}')
        release.set()
        thread.join()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert first[0].status_code == 200


def test_threads_are_those_of_the_quota_not_of_the_host(bundle, monkeypatch):
    monkeypatch.setattr(serving, "usable_cpus", lambda: 3)
    assert create_app(bundle).state.server.turns.workers == 3
    monkeypatch.setattr(serving, "read_config", lambda file: type("Config", (), {"threads": 8}))
    server = create_app(bundle).state.server
    assert (server.threads, server.turns.workers) == (3, 1)


def test_a_broken_bundle_ends_with_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def exchange(port, request):
    """What the server sends back to raw bytes, until it closes or says nothing for a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        connection.settimeout(5)
        received = b""
        while not received.endswith(b"}"):
            part = connection.recv(65536)
            if not part:
                break
            received += part
        return received


def post(body, headers=b"content-type: application/json\r\n"):
    return b"POST /predict HTTP/1.1\r\nhost: x\r\n" + headers + b"content-length: %d\r\n\r\n" % len(body) + body


def test_a_real_process_refuses_and_lives_then_finishes_its_work_and_ends(bundle):
    many = post(json.dumps({"texts": ["turn on the lamp"] * 5000}).encode())
    with process(bundle, "--max-texts", "5000") as (running, port):
        large = exchange(port, post(json.dumps({"texts": ["a" * 10_000_000]}).encode()))
        assert large.startswith(b"HTTP/1.1 413")
        assert exchange(port, post(b"x", b"content-type: image/png\r\n")).startswith(b"HTTP/1.1 415")
        assert exchange(port, post(b'{"texts": ["\xff"]}')).startswith(b"HTTP/1.1 400")
        assert exchange(port, b"not http at all\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert b'"label"' in exchange(port, post(b'{"texts": ["rain"]}'))
        received = []
        thread = threading.Thread(target=lambda: received.append(exchange(port, many)))
        thread.start()
        time.sleep(0.05)
        assert not received
        running.send_signal(signal.SIGTERM)
        thread.join()
        assert received[0].count(b'"label"') == 5000
        assert running.wait(20) == 0
