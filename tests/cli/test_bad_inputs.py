"""What a tired person types, and files that are not what they seem: the right code, one line, at once."""

import json
import os
import shutil
import time

import click
import pytest
import yaml
from safetensors.torch import load_file, save_file

from edgekd.cli import COMMANDS, group

from .test_cli import run

NUMBERS = ("", "abc", "nan", "-1", "1e999", "9" * 25, "0x10", "1,5", "١٢")
WORDS = ("", " ", "\x1b[2J", "x" * 300, "-", "--", "é\u202e")
# Each is a path in the folder of the test: `paths` makes them.
PATHS = (
    "",
    "none/where",
    "file/under",
    "loop",
    "x" * 5000,
    "a/" * 2500 + "b",
    "pipe",
    "/dev/null",
    "/proc/1/mem",
    "hole.json",
)
SECONDS = 5.0

# What a command needs beside the flag that is tried. Nothing here is there, so that nothing is computed if it is taken.
BASES = {
    "compress": ["--demo", "--dry-run"],
    "plan": ["--teacher", "nowhere", "--data", "nowhere", "--latency-ms", "5"],
    "teach": ["--encoder", "nowhere", "--data", "nowhere", "--out", "new"],
    "transfer": ["--data", "nowhere", "--out", "new"],
    "distill": ["--teacher", "nowhere", "--data", "nowhere", "--plan", "nowhere", "--out", "new"],
    "export": ["--student", "nowhere", "--teacher", "nowhere", "--data", "nowhere", "--out", "new"],
    "validate": ["nowhere"], "predict": ["nowhere", "file"], "serve": ["nowhere"], "report": ["nowhere"],
    "profiles": [], "cache": [], "doctor": [],
}  # fmt: skip


def cases():
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        commands = {name: command}
        if isinstance(command, click.Group):
            commands = {f"{name} {sub}": one for sub, one in command.commands.items()}
        for words, one in commands.items():
            for parameter in one.params:
                if not isinstance(parameter, click.Option) or parameter.is_flag or parameter.hidden:
                    continue
                kind = parameter.type
                if isinstance(kind, click.types.FloatParamType | click.types.IntParamType):
                    values = NUMBERS
                elif isinstance(kind, click.Path) or parameter.opts[0] in (
                    "--data",
                    "--teacher",
                    "--encoder",
                    "--generic",
                ):
                    values = PATHS
                elif isinstance(kind, click.Choice):
                    values = WORDS[:2]
                else:
                    values = WORDS
                for value in values:
                    yield pytest.param(
                        words, parameter.opts[-1], value, id=f"{words} {parameter.opts[-1]} {value[:12]!a}"
                    )


@pytest.fixture
def paths(own_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "hole.json").open("wb") as file:
        file.truncate(2**38)
    return tmp_path


def ended(capsys, words, seconds=SECONDS):
    """The exit code and the line of the error, if there is one; however it ends, that is quietly and in time."""
    start = time.monotonic()
    code, out, err = run(capsys, *words)
    took = time.monotonic() - start
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == (code != 0), err[-400:]
    assert "unexpected" not in err
    assert "Traceback" not in err
    assert "\x1b" not in err + out
    # The doctor measures for five.
    assert took < seconds + 5 * (words[0] == "doctor")
    return code, lines[0] if lines else ""


@pytest.mark.slow
@pytest.mark.parametrize(("words", "flag", "value"), cases())
def test_a_flag_is_taken_or_refused_in_one_line(paths, capsys, words, flag, value):
    command, *more = words.split()
    base = list(BASES.get(command, []))
    if flag in base:
        at = base.index(flag)
        del base[at : at + 2]
    if command == "doctor" or (command == "cache" and not value):
        base = [*base, "--json"]
    if words == "probe make":
        base = ["new.zip", "--teacher", "nowhere"]
    elif words == "probe add":
        base = ["nowhere.json", "--name", "new"]
    codes = (0, 2, 3) if command in ("doctor", "profiles", "cache") else (0, 2) if command == "compress" else (2,)
    seconds = SECONDS
    if value in ("none/where", "file/under"):
        codes = (0, 2, 3, 4)  # ids of the hub, which may not be reached
    elif value == "hole.json":
        codes, seconds = (0, 2, 3, 4), 60  # larger than any memory
    code, line = ended(capsys, [command, *more, *base, flag, value], seconds)
    assert code in codes, line


@pytest.fixture
def folders(paths, tiny_teacher, intent_data):
    shutil.copytree(tiny_teacher, "t")
    shutil.copytree(intent_data, "d")
    return paths


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def no_layers(folder):
    edit_json(folder / "t" / "config.json", lambda config: config.update(num_hidden_layers=0))
    kept = {
        name: value for name, value in load_file(folder / "t" / "model.safetensors").items() if ".layer." not in name
    }
    save_file(kept, folder / "t" / "model.safetensors", {"format": "pt"})


def corrupt_parquet(folder):
    (folder / "d" / "train.jsonl").unlink()
    (folder / "d" / "train.parquet").write_bytes(b"PAR1" + b"\x00\xff" * 500 + b"PAR1")


def twice(folder):
    (folder / "p.yaml").write_text("budget: {latency_ms: 5}\nbudget: {latency_ms: 7}\n")


def bomb(folder):
    (folder / "p.yaml").write_text("a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [{'*a, ' * 40}]\n" for i in range(20)))


def write_profile(**content):
    def write(folder):
        (folder / "p.yaml").write_text(yaml.safe_dump(content))

    return write


def weights(**change):
    return lambda folder: edit_json(folder / "t" / "config.json", lambda config: config.update(change))


COMPRESS = ("compress", "--teacher", "t", "--data", "d", "--latency-ms", "5", "--out", "new")
PROFILE = (*COMPRESS, "--dry-run", "--profile", "p.yaml")
MADE = [
    ("a teacher of no layers", no_layers, COMPRESS, ""),
    ("a teacher with -1 layers", weights(num_hidden_layers=-1), COMPRESS, ""),
    ("a teacher of width 0", weights(hidden_size=0), COMPRESS, ""),
    ("heads that do not divide", weights(num_attention_heads=5), COMPRESS, ""),
    ("labels that are numbers", weights(id2label={"0": 1, "1": 2, "2": 3, "3": 4}), COMPRESS, ""),
    ("parquet that is none", corrupt_parquet, COMPRESS, "train.parquet"),
    ("a key twice", twice, PROFILE, "'budget' is given twice"),
    ("aliases of aliases", bomb, PROFILE, "too many aliases"),
    ("a profile of a list", lambda f: (f / "p.yaml").write_text("- 1"), PROFILE, "expected a mapping"),
    ("a profile of nothing", lambda f: (f / "p.yaml").write_text(""), PROFILE, "expected a mapping"),
    ("a budget that is no number", write_profile(budget={"latency_ms": float("nan")}), PROFILE, "latency_ms"),
    ("a field that there is not", write_profile(budgets={}), PROFILE, "budget"),
    ("a seed beyond all", write_profile(name="p", distill={"seed": 2**80}), PROFILE, "seed"),
    ("threads beyond all", write_profile(target={"kind": "onnxruntime-cpu", "threads": 10**9}),
     COMPRESS + PROFILE[-2:], ""),
    ("a cache under a file", lambda f: None, (*COMPRESS, "--cache-dir", "file/cache"), ""),
    ("a cache that is a loop", lambda f: None, (*COMPRESS, "--cache-dir", "loop"), ""),
    ("an out that is a loop", lambda f: None, (*COMPRESS[:-1], "loop"), ""),
    ("an out in a pipe", lambda f: None, (*COMPRESS[:-1], "pipe/x"), ""),
    ("an out as long as none", lambda f: None, (*COMPRESS[:-1], "x" * 5000), ""),
    ("data of a pipe", lambda f: None, ("compress", "--teacher", "t", "--data", "pipe", "--latency-ms", "5"), ""),
    ("data that is empty", lambda f: (f / "d" / "train.jsonl").write_text(""), COMPRESS, ""),
    ("data of one null", lambda f: (f / "d" / "train.jsonl").write_text("null\n"), COMPRESS, ""),
    ("data too deep", lambda f: (f / "d" / "train.jsonl").write_text("[" * 10**5 + "\n"), COMPRESS, ""),
    ("a number too long",
     lambda f: (f / "d" / "train.jsonl").write_text('{"text": "a", "label": ' + "1" * 5000 + "}\n"),
     COMPRESS, ""),
    ("no text column", lambda f: None, (*COMPRESS, "--text-column", ""), "--text-column"),
    ("weights cut short", lambda f: os.truncate(f / "t" / "model.safetensors", 1000), COMPRESS, ""),
    ("weights that are text", lambda f: (f / "t" / "model.safetensors").write_text("x" * 100), COMPRESS, ""),
    ("a tokenizer that is text", lambda f: (f / "t" / "tokenizer.json").write_text("x"), COMPRESS, ""),
    ("a configuration that is a list", lambda f: (f / "t" / "config.json").write_text("[]"), COMPRESS, ""),
    ("a configuration too deep", lambda f: (f / "t" / "config.json").write_text("[" * 10**5), COMPRESS, ""),
    ("a plan of nothing", lambda f: (f / "plan.json").write_text("{}"), (*COMPRESS, "--plan", "plan.json"), "--plan"),
    ("a plan of bytes", lambda f: (f / "plan.json").write_bytes(b"\xff\xfe"),
     (*COMPRESS, "--plan", "plan.json"), "--plan"),
    ("a request of nothing", lambda f: (f / "r.yaml").write_text("{}"), ("compress", "-c", "r.yaml"), ""),
    ("a request twice", lambda f: (f / "r.yaml").write_text("a: 1\na: 1\n"), ("compress", "-c", "r.yaml"), "twice"),
    ("a bundle of nothing", lambda f: None, ("validate", "d"), ""),
    ("a report of nothing", lambda f: None, ("report", "d"), ""),
    ("a server of nothing", lambda f: None, ("serve", "d"), ""),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("make", "words", "said"), [pytest.param(*case[1:], id=case[0]) for case in MADE])
def test_a_file_is_read_or_refused_in_one_line(folders, capsys, make, words, said):
    make(folders)
    code, line = ended(capsys, words)
    assert code == 2, line
    assert said in line


def test_there_are_so_many():
    assert len(list(cases())) + len(MADE) >= 300
