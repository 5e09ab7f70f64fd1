"""A bundle that somebody else has had in hands: whatever was done to a file, the answer is right or there is none.

Each damage is tried in a process that stays: one that dies, or does not come back in ten seconds, is a fault.
"""

import contextlib
import io
import json
import math
import multiprocessing
import os
import random
import shutil
import sys
import time

import pytest
from starlette.testclient import TestClient

import edgekd
from edgekd import api
from edgekd.cli import main
from edgekd.errors import EdgekdError
from edgekd.serving.server import create_app

COUNT, SECONDS = 2000, 10.0
COMMANDS = (
    ("predict", "texts.txt"), ("validate", "--only", "answers", "--json"), ("report", "--format", "json"),
    ("load",), ("serve",),
)  # fmt: skip
TEXTS = ["turn the lights off", "play some jazz"]
NASTY = (
    None, -1, 0, 2**70, 1e308, math.nan, math.inf, "", "x" * 10_000, "\x1b[2J\x9b", "../../etc/passwd", [], {},
    [[]] * 99, True, ["a"] * 9, {"a": {"a": {}}}, "\ud800", 0.5, 100_000,
)  # fmt: skip


def places(value, path=()):
    """Where a JSON value has parts."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def put(value, path, new):
    if not path:
        return new
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new
    return None


def of_json(rng, data):
    content = json.loads(data)
    top = list(places(content))
    for _ in range(rng.choice((1, 1, 2))):
        # The second place may have gone with the first.
        with contextlib.suppress(TypeError, KeyError, IndexError):
            made = put(content, rng.choice(top), rng.choice(NASTY))
            if made is not None:
                content = made
                break
    return json.dumps(content).encode("utf-8", "surrogatepass")


def of_bytes(rng, data):
    data, at = bytearray(data), rng.randrange(max(len(data), 1))
    kind = rng.choice(("flip", "flip", "cut", "drop", "twice", "zero", "noise", "empty", "more"))
    if kind == "flip" and data:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "drop":
        del data[at : at + rng.randrange(1, 200)]
    elif kind == "twice":
        data[at:at] = data[at : at + 200]
    elif kind == "zero":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == "noise":
        data[at : at + 16] = rng.randbytes(len(data[at : at + 16]))
    elif kind == "empty":
        data.clear()
    else:
        data += rng.randbytes(rng.randrange(1, 64))
    return bytes(data)


def damage(rng, path):
    """Do something to one file; what was done, in words."""
    data, kind = path.read_bytes(), rng.random()
    if kind < 0.06:
        path.unlink()
        what = rng.choice(("link out", "pipe", "folder", "hole", "gone", "loop"))
        if what == "link out":
            path.symlink_to("/etc/hostname")
        elif what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        elif what == "loop":
            path.symlink_to(path)
        elif what == "hole":
            with path.open("wb") as file:
                file.truncate(2**36)
        return what
    if path.suffix == ".json" and kind < 0.6:
        path.write_bytes(of_json(rng, data))
        return "JSON"
    path.write_bytes(of_bytes(rng, data))
    return "bytes"


def load(folder):
    print(edgekd.load(folder).predict(TEXTS))  # noqa: T201


def serve(folder):
    """The server's application, as `edgekd serve` starts it, asked once."""
    with TestClient(create_app(folder)) as client:
        answer = client.post("/predict", json={"texts": TEXTS})
    assert answer.status_code == 200
    print(answer.json()["answers"])  # noqa: T201


def call(words):
    """Run a command, or a function as if it were one; the exit code."""
    if words[0] not in ("load", "serve"):
        try:
            main(words)
        except SystemExit as end:
            return end.code
        return 0
    try:
        (load if words[0] == "load" else serve)(words[1])
    except EdgekdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return int(error.exit_code)
    except Exception as error:
        print(f"Traceback: {error!r}", file=sys.stderr)  # noqa: T201
        return 4
    return 0


def work(pipe, folder):
    """Run commands that come, until there is none."""
    os.chdir(folder)
    while (words := pipe.recv()) is not None:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call(words)
        out.flush()
        pipe.send((code, out.buffer.getvalue(), err.getvalue()))


class Worker:
    def __init__(self, folder):
        self.folder, self.process = folder, None

    def run(self, words):
        """(exit code, stdout, stderr); a code of None where it died or did not come back."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=work, args=(other, str(self.folder)), daemon=True)
            self.process.start()
            other.close()
        self.pipe.send(words)
        start = time.monotonic()
        try:
            if self.pipe.poll(SECONDS + 20):
                code, out, err = self.pipe.recv()
                took = time.monotonic() - start
                return (code, out, err) if took <= SECONDS else (None, out, f"{took:.0f} s; {err}")
            self.end()
            return None, b"", "never came back"
        except EOFError:
            self.end()
            return None, b"", "died"

    def end(self):
        self.process.kill()
        self.process.join()
        self.process = None


@pytest.fixture(scope="module")
def bundle(tiny_teacher, intent_data, tmp_path_factory):
    """A real bundle of the whole product, with a student of its own."""
    folder = tmp_path_factory.mktemp("whole")
    request = api.request(
        teacher=str(tiny_teacher), data=str(intent_data), latency_ms=5,
        settings={"search.always_distill": True, "distill.stages.0.training.epochs": 1},
    )  # fmt: skip
    api.compress(request, folder / "b", cache_dir=folder / "cache")
    return folder / "b"


@pytest.mark.slow
def test_damage_ends_in_one_line_or_changes_nothing(bundle, tmp_path):
    rng, worker, faults = random.Random(22), Worker(tmp_path), []
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    whole = {words: worker.run([words[0], str(bundle), *words[1:]]) for words in COMMANDS}
    assert [code for code, *_ in whole.values()] == [0] * len(COMMANDS)
    files = [path.relative_to(bundle) for path in sorted(bundle.rglob("*")) if path.is_file()]
    for i in range(COUNT):
        copy = shutil.copytree(bundle, tmp_path / f"copy-{i}")
        file = files[i % len(files)]
        what = damage(rng, copy / file)
        for words in COMMANDS:
            code, out, err = worker.run([words[0], str(copy), *words[1:]])
            lines = [line for line in err.splitlines() if line.startswith("error: ")]
            right = code == 0 and (words[0] in ("validate", "report") or out == whole[words][1])
            refused = code == 2 and len(lines) == 1 and "Traceback" not in err and "\x1b" not in err
            # Answers that are not those that were stored: what validate is for.
            missed = words[0] == "validate" and code == 1
            if not (right or refused or missed):
                faults.append((i, str(file), what, words[0], code, err[-300:]))
                print(*faults[-1], flush=True)  # noqa: T201
        shutil.rmtree(copy, ignore_errors=True)
    assert not faults, "\n".join(map(str, faults[:20])) + f"\n{len(faults)} of {COUNT}"
