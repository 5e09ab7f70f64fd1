"""The demo page in a real, headless browser: onnxruntime-web on the bundle's own file, nothing fetched elsewhere."""

import functools
import http.server
import json
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import TEXTS, command, need, npm_install

SCRIPT = Path(__file__).with_name("type_in_page.mjs")


@contextmanager
def served(folder):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.slow
def test_the_page_classifies_as_one_types_and_shows_its_latency(bundle, expected, tmp_path):
    node, chromium = need("node", "chromium")
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    npm_install(copy / "deploy" / "web")
    (tmp_path / "browser").mkdir()
    shutil.copyfile(SCRIPT, tmp_path / "browser" / SCRIPT.name)
    npm_install(tmp_path / "browser", "playwright-core@1.65.1")
    with served(copy) as port:
        url = f"http://127.0.0.1:{port}/deploy/web/"
        page = json.loads(
            command(node, tmp_path / "browser" / SCRIPT.name, chromium, url, json.dumps(TEXTS), timeout=180)
        )
    assert page["errors"] == []
    assert page["outside"] == []
    assert [typed["label"] for typed in page["said"]] == expected
    assert all(0 < float(typed["ms"]) < 1000 for typed in page["said"])
    assert "ms, median of the last" in page["status"]
    assert page["shown"] == 4
