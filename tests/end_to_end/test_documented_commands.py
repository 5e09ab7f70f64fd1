"""What README and docs tell people to type runs as it stands, on the tiny encoder and the tiny task."""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from edgekd.data.read import read_data
from edgekd.profiles import load_profile

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]

# What a slow test of commands cannot run as it stands, by what a line of it says: the tests that run it.
ELSEWHERE = {
    "edgekd probe": "tests/remote",
    "--profile pi": "tests/remote",
    "--measured result.json": "tests/remote",
    "edgekd serve": "tests/serving",
    "curl -s localhost": "tests/serving",
    "texts.csv --text-column": "tests/deploy/test_docs.py",
    "edgekd export --triton": "tests/deploy/test_docs.py",
    "edgekd export --bundle": "tests/export/test_single_file.py",
    "import onnxruntime_extensions": "tests/export/test_single_file.py",
    "tritonclient": "tests/deploy/test_triton_client.py",
    "docker build": "tests/test_packaging.py",
    "kubectl apply": "tests/deploy/test_deploy.py",
    "import mlflow": "tests/deploy/test_deploy.py",
    "node bundle/deploy": "tests/deploy/test_node.py",
    "cd bundle/deploy/node": "tests/deploy/test_node.py",
    "cd bundle/deploy/web": "tests/deploy/test_web.py",
    "optimum": "tests/deploy/test_optimum.py",
    "deploy/tensorrt/build.py": "tests/deploy/test_tensorrt.py",
    "--track tensorboard": "tests/pipeline/test_track.py",
    "edgekd compress --latency-ms 10": "benchmarks/demo.py",
    "pip install": "tests/test_packaging.py",
    "make demo": "benchmarks/demo.py",
    "make test": ".ci/run",
}
# Code that is written into a module: the module that it is run in here.
MODULES = {
    "docs/add-a-loss.md": ("edgekd.settings.losses", "edgekd.distill.losses.prediction"),
    "docs/add-a-target.md": ("edgekd.settings.target", None),
    "docs/add-a-task.md": ("edgekd.settings.task", "edgekd.tasks.text_classification"),
    "docs/add-an-augmentation.md": ("edgekd.settings.augment", "edgekd.data.augment.words"),
}


def blocks(page):
    """(language, text) of the page's fenced blocks, and of its indented ones that call a command."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = r"^( *)```(\w*)\n(.*?)^ *```$"
    found = [(m[2], textwrap.dedent(m[3])) for m in re.finditer(fenced, text, re.MULTILINE | re.DOTALL)]
    bare = re.sub(fenced, "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    ((?:edgekd|make|pip) .*)$", bare, re.MULTILINE)
    return found + [("console", f"$ {line}\n") for line in indented]


def commands(page):
    """The lines of a page that call edgekd, are whole, and are run by no other test."""
    lines = [
        line.removeprefix("$ ")
        for language, text in blocks(page) if language in ("console", "bash", "yaml")
        # A step of a pipeline is a line of YAML.
        for line in (re.sub(r"^ *(- )?(run: )?", "", line) for line in text.splitlines())
    ]  # fmt: skip
    return [
        line for line in lines
        if line.startswith("edgekd ") and "..." not in line and not any(sign in line for sign in ELSEWHERE)
    ]  # fmt: skip


def pages_with(what):
    return [page for page in PAGES if what(page)]


def texts_of(language, page):
    return [text for found, text in blocks(page) if found == language]


def test_every_block_is_run_somewhere():
    """A new block is run by a test here, or names the one that does."""
    for page in PAGES:
        for language, text in blocks(page):
            lines = [line for line in text.splitlines() if line.startswith("$ ")] or text.splitlines()
            elsewhere = any(sign in text for sign in ELSEWHERE)
            if language in ("console", "bash"):
                assert elsewhere or any(line.removeprefix("$ ").startswith("edgekd ") for line in lines), (page, text)
            else:
                assert elsewhere or language in ("python", "yaml", "json", "text", ""), (page, language)
    for tests in ELSEWHERE.values():
        assert (ROOT / tests).exists()


def prepare(folder, tiny_encoder, tiny_teacher, intent_data):
    """What the pages suppose: encoders, a teacher, data, outputs of another teacher, generic text."""
    names = {"MiniLM-L6": tiny_encoder, "encoder": tiny_encoder, "my-bert": tiny_teacher, "teacher": tiny_teacher}
    for name, source in names.items():
        shutil.copytree(source, folder / name)
    shutil.copytree(intent_data, folder / "data")
    rows = [json.loads(line) for line in (intent_data / "unlabeled.jsonl").read_text(encoding="utf-8").splitlines()]
    (folder / "text.txt").write_text("\n".join(row["text"] for row in rows), encoding="utf-8")
    other = [{"text": " ".join(reversed(row["text"].split()))} for row in rows]
    (folder / "news.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other), encoding="utf-8")
    shutil.copyfile(intent_data / "train.jsonl", folder / "outputs.jsonl")
    (folder / "texts.csv").write_text("text,message\nturn the lights off,wake me\n")


def rewrite(folder, task):
    """The same sentences as rows of another task."""
    for name in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        made = []
        for i, row in enumerate(rows):
            words = row["text"].split()
            made.append({
                "multi-label-classification": {"text": row["text"], "labels": [row["label"]] * (i % 3 > 0)},
                "text-regression": {"sentence1": row["text"], "sentence2": words[0], "score": len(words) / 2},
                "joint-intent-slots": {"tokens": words, "tags": ["B-first"] + ["O"] * (len(words) - 1),
                                       "label": row["label"]},
            }[task])  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    (folder / "unlabeled.jsonl").unlink()


def run(folder, words):
    if words[0] not in ("predict", "profiles"):
        words = [*words, "--cache-dir", str(folder / "cache")]
    return subprocess.run(
        [sys.executable, "-m", "edgekd", *words, *quick(words)], cwd=folder, capture_output=True, text=True, check=False
    )


def quick(words):
    """A documented run takes as long as it takes; a test trains for less."""
    return ["--max-steps", "5"] if "--task-agnostic" in words else ["--epochs", "1"] if words[0] == "teach" else []


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(commands))
def test_commands_run_as_they_stand(page, tiny_encoder, tiny_teacher, intent_data, tmp_path):
    prepare(tmp_path, tiny_encoder, tiny_teacher, intent_data)
    task = None
    for line in commands(page):
        line = line.partition(" > ")[0].replace("$GITHUB_STEP_SUMMARY", "summary.md")
        # The tiny encoder is 32 wide.
        words = ["2x32x64h4" if word.startswith("6x384") else word for word in shlex.split(line, comments=True)[1:]]
        if "--task" in words and words[words.index("--task") + 1] != task:
            task = words[words.index("--task") + 1]
            shutil.rmtree(tmp_path / "data")
            shutil.copytree(intent_data, tmp_path / "data")
            rewrite(tmp_path / "data", task)
        if "--student" in words or words[:2] == ["validate", "bundle"]:
            run(tmp_path, ["compress", "--teacher", "my-bert", "--data", "data", "--latency-ms", "10",
                           "--always-distill"])  # fmt: skip
            shutil.copytree(tmp_path / "bundle" / "student", tmp_path / "student", dirs_exist_ok=True)
        if "--out" in words:
            # A page may show several ways to one folder.
            shutil.rmtree(tmp_path / words[words.index("--out") + 1], ignore_errors=True)
        ran = run(tmp_path, words)
        # The tiny teacher learned a tiny task: quality is not what is tested.
        assert ran.returncode in ((0, 1, 5) if words[0] in ("compress", "validate") else (0,)), (line, ran.stderr)
        assert "Traceback" not in ran.stderr
        if "--out" in words:
            assert (tmp_path / words[words.index("--out") + 1]).is_dir()


@pytest.mark.slow
def test_python_runs_as_it_stands(tiny_encoder, tiny_teacher, intent_data, tmp_path, monkeypatch):
    prepare(tmp_path, tiny_encoder, tiny_teacher, intent_data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    import edgekd

    printed, left = io.StringIO(), {}
    for page in ("docs/python.md", "README.md", "docs/tasks.md"):
        for code in texts_of("python", page):
            names = {"edgekd": edgekd}
            if "model" in code and (tmp_path / "bundle").exists():
                names["model"] = edgekd.load("bundle")
            if "bundle/student" in code:
                # The tiny teacher meets the page's budget as it is: a bundle without a student.
                words = ["compress", "--teacher", "my-bert", "--data", "data", "--latency-ms", "10"]
                run(tmp_path, [*words, "--always-distill", "--out", "distilled"])
                shutil.copytree(tmp_path / "distilled" / "student", tmp_path / "bundle" / "student")
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            left |= names
    assert "'label'" in printed.getvalue()
    assert left["result"].outcome in printed.getvalue()
    assert type(left["student"]).__name__ == "StudentModel"


def test_code_to_write_into_a_module_runs_there():
    for page, modules in MODULES.items():
        made = {}
        for code, name in zip(texts_of("python", page), modules, strict=True):
            if name is None:
                # A row of a table, as the page says.
                compile("{" + code + "}", page, "exec")
                continue
            module = importlib.import_module(name)
            names = {**vars(module), **made}
            head, _, rest = code.partition("\n...\n")
            exec(head, names)
            if rest:
                compile("def _():\n" + rest, page, "exec")
            made = {key: value for key, value in names.items() if key not in vars(module)}
        assert made or None in modules


def test_settings_are_settings(tmp_path):
    for page in pages_with(lambda page: texts_of("yaml", page)):
        for text in texts_of("yaml", page):
            content = yaml.safe_load(text)
            if page == "docs/validate-in-ci.md":
                assert "edgekd validate" in text
                continue
            content = {"name": "documented", **content}
            (tmp_path / "documented.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
            assert load_profile(str(tmp_path / "documented.yaml")).name in ("documented", content["name"])


def test_rows_are_rows(tmp_path):
    for page in pages_with(lambda page: texts_of("json", page)):
        for text in texts_of("json", page):
            if "probs" in text:
                continue  # a teacher's outputs, each form of them: tests/inputs
            for name in ("train", "validation", "test"):
                (tmp_path / f"{name}.jsonl").write_text(text + text.replace("3.4", "1"), encoding="utf-8")
            assert len(read_data(tmp_path).train) == 2 * len(text.splitlines())
