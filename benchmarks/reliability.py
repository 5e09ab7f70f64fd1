"""What a kill, a flipped bit or a full disk leaves behind: a compress of a tiny teacher, damaged and then gone on with.

    python benchmarks/reliability.py kill  [--times 100]   kill -9 at a random file-system event
    python benchmarks/reliability.py term  [--times 20]    SIGTERM at a random moment
    python benchmarks/reliability.py flip  [--times 100]   a bit flipped anywhere in a finished store
    python benchmarks/reliability.py disk                  16 sizes of a disk that fills up: cache, TMPDIR, out (root)

After each, the same command again. Each writes results/reliability_PART.json after every trial and goes on from there.
A run is this process, forked once torch is imported; the device is the fake one, so that a bundle is the same to the
byte.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from record import RESULTS, write_record
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification

from edgekd.cli import main as edgekd
from edgekd.store import MANIFEST

# What a run imports: once, before it is forked.
for heavy in ("matplotlib.pyplot", "onnx", "onnxruntime", "onnx_ir", "scipy.stats", "edgekd.pipeline.compress",
              "edgekd.report.html", "transformers.models.bert", "edgekd.cli.compress"):  # fmt: skip
    importlib.import_module(heavy)

INTENTS = {"lights": "lamp dim bright light", "music": "play song jazz album", "time": "wake alarm clock six"}
PROFILE = """
name: fake
budget: {latency_ms: 0.03}
target: {kind: fake, gflops: 10.0}
search: {always_distill: true}
distill: {stages: [{training: {epochs: 3, learning_rate: 0.003, precision: fp32, evaluations: 2}}]}
accept: {min_retained: 0.05, max_drop: 50.0}
"""
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree", "shutil.move")


def make_inputs(folder: Path) -> None:
    """A random BERT of three layers, a task of three words a label, and the profile."""
    torch.manual_seed(0)
    rng = random.Random(0)
    words = sorted({word for text in INTENTS.values() for word in text.split()} | {"please", "now", "the", "at"})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, id2label=dict(enumerate(INTENTS)), label2id={n: i for i, n in enumerate(INTENTS)},
    )  # fmt: skip
    (folder / "teacher").mkdir()
    (folder / "data").mkdir()
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(folder / "teacher")
    weights = {name: value.contiguous() for name, value in BertForSequenceClassification(config).state_dict().items()}
    save_file(weights, folder / "teacher" / "model.safetensors", {"format": "pt"})
    tokenizer.save(str(folder / "teacher" / "tokenizer.json"))
    (folder / "teacher" / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]",
        "sep_token": "[SEP]", "mask_token": "[MASK]",
    }))  # fmt: skip
    for split, count in (("train", 120), ("validation", 60), ("test", 60), ("unlabeled", 120)):
        rows = []
        for i in range(count):
            label = rng.choice(list(INTENTS))
            text = " ".join(rng.choices([*INTENTS[label].split(), "please", "now", "the", "at"], k=rng.randint(2, 6)))
            rows.append({"text": f"{text} {i}"} | ({} if split == "unlabeled" else {"label": label}))
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "fake.yaml").write_text(PROFILE)


def run(
    folder: Path, name: str, *, kill_at: int | None = None, term_after: float | None = None, count: Path | None = None,
    cache: Path | None = None, out: Path | None = None, tmp: Path | None = None,
) -> tuple[int, str]:  # fmt: skip
    """`edgekd compress` in a child of its own; (exit code, stderr). Killed at an event, or ended after a time."""
    arguments = ["compress", "--teacher", str(folder / "teacher"), "--data", str(folder / "data"), "--profile",
                 str(folder / "fake.yaml"), "--cache-dir", str(cache or folder / name / "cache"),
                 "--out", str(out or folder / name / "out")]  # fmt: skip
    (folder / name).mkdir(exist_ok=True)
    log = folder / f"{name}.err"
    child = os.fork()
    if child == 0:
        stream = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(stream, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ["TMPDIR"] = str(tmp or folder / name)
        tempfile.tempdir = None
        seen = 0

        def watch(event: str, given: tuple[Any, ...]) -> None:
            nonlocal seen
            writes = event in WRITES or (event == "open" and isinstance(given[2], int) and given[2] & 3)
            if writes:
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        if kill_at is not None or count is not None:
            sys.addaudithook(watch)
        code = 4
        try:
            edgekd(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            if count is not None:
                count.write_text(str(seen))
            os._exit(code)
    if term_after is not None:
        time.sleep(term_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


def sums(out: Path) -> dict[str, str]:
    """Checksums of what is deployed."""
    files = json.loads((out / "verdict.json").read_text())["files"]
    return {name: files[name] for name in ("model.onnx", "config.json", "tokenizer.json", "student/model.safetensors")}


def artefacts(cache: Path) -> dict[str, int]:
    """Finished steps: folder and the time when their manifest was written."""
    return {str(path.parent.relative_to(cache)): path.stat().st_mtime_ns for path in cache.rglob(MANIFEST)}


def goes_on(folder: Path, name: str, whole: dict[str, str], before: dict[str, int]) -> dict[str, Any]:
    """The same command again: whether it ends well with the same bundle, and how many finished steps it made again."""
    code, said = run(folder, name)
    after = artefacts(folder / name / "cache")
    same = code == 0 and sums(folder / name / "out") == whole
    left = [path.name for path in (folder / name).iterdir() if path.name not in ("cache", "out")]
    again = sum(after.get(step) != written for step, written in before.items())
    return {"code": code, "same": same, "again": again, "left": left, **({} if same else {"said": said[-500:]})}


def killed(folder: Path, trial: int, whole: dict[str, str], events: int) -> dict[str, Any]:
    at = random.Random(trial).randint(1, events)
    code, _ = run(folder, "cut", kill_at=at)
    return {"event": at, "killed": code == -signal.SIGKILL} | goes_on(
        folder, "cut", whole, artefacts(folder / "cut" / "cache")
    )


def terminated(folder: Path, trial: int, whole: dict[str, str], seconds: float) -> dict[str, Any]:
    after = random.Random(trial).uniform(0.05, 0.8 * seconds)
    code, said = run(folder, "cut", term_after=after)
    left = [path.name for path in (folder / "cut").iterdir() if path.name not in ("cache", "out")]
    lines = said.strip().splitlines()
    found = {"after_s": round(after, 2), "ended": code, "line": lines[-1] if lines else "", "left_at_once": left}
    return found | goes_on(folder, "cut", whole, artefacts(folder / "cut" / "cache"))


def flipped(folder: Path, trial: int, whole: dict[str, str]) -> dict[str, Any]:
    rng = random.Random(trial)
    shutil.copytree(folder / "whole" / "cache", folder / "cut" / "cache", symlinks=True)
    files = sorted(path for path in (folder / "cut" / "cache").rglob("*") if path.is_file() and path.stat().st_size)
    # Anywhere: a byte of the store, not a file of it.
    path = rng.choices(files, [file.stat().st_size for file in files])[0]
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data) * 8)
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)
    code, said = run(folder, "cut")
    there = code == 0 and (folder / "cut" / "out" / "verdict.json").is_file()
    wrong = there and sums(folder / "cut" / "out") != whole
    file = str(path.relative_to(folder / "cut" / "cache"))
    return {
        "file": file,
        "code": code,
        "same": there and not wrong,
        "wrong": wrong,
        "said": said[-300:] if code else "",
    }


def filled(folder: Path, where: str, share: float, whole: dict[str, str], need: int) -> dict[str, Any]:
    """A run on a disk with a share of what it needs; then with room."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    size = max(int(need * share), 4096)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        place = {where: disk / where}
        if where == "tmp":
            place["tmp"].mkdir()
        code, said = run(folder, "cut", **place)
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        then, more = run(folder, "cut", **place)
        out = place.get("out", folder / "cut" / "out")
        same = then == 0 and sums(out) == whole
        right = code == 0 or (code == 4 and len(lines) == 1 and "no space left" in lines[0])
        return {"where": where, "share": share, "code": code, "line": lines[-1:], "right": right, "then": then,
                "same": same, **({} if same else {"said": more[-500:]})}  # fmt: skip
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["kill", "term", "flip", "disk"])
    parser.add_argument("--times", type=int)
    options = parser.parse_args()
    name = f"reliability_{options.part}"
    file = RESULTS / f"{name}.json"
    trials: list[dict[str, Any]] = json.loads(file.read_text())["trials"] if file.is_file() else []
    times = options.times or {"kill": 100, "term": 20, "flip": 100, "disk": 48}[options.part]
    folder = Path(tempfile.mkdtemp())
    try:
        make_inputs(folder)
        start = time.perf_counter()
        code, said = run(folder, "whole", count=folder / "events")
        seconds = time.perf_counter() - start
        if code:
            raise SystemExit(f"the run itself ends with {code}: {said}")
        whole, events = sums(folder / "whole" / "out"), int((folder / "events").read_text())
        sizes = {
            part: sum(p.stat().st_size for p in (folder / "whole" / part).rglob("*") if p.is_file())
            for part in ("cache", "out")
        }
        sizes["tmp"] = sizes["cache"]
        print(f"whole: {seconds:.1f} s, {events} events, {sizes}")
        while len(trials) < times:
            trial = len(trials)
            shutil.rmtree(folder / "cut", ignore_errors=True)
            (folder / "cut").mkdir()
            if options.part == "kill":
                found = killed(folder, trial, whole, events)
            elif options.part == "term":
                found = terminated(folder, trial, whole, seconds)
            elif options.part == "flip":
                found = flipped(folder, trial, whole)
            else:
                where = ("cache", "tmp", "out")[trial // 16]
                found = filled(folder, where, (trial % 16 + 0.5) / 16, whole, sizes[where])
            trials.append(found)
            print(trial, json.dumps(found)[:300], flush=True)
            write_record(name, {"trials": trials, "seconds": seconds, "events": events, "bytes": sizes})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        Counter((key, str(trial.get(key))) for trial in trials for key in ("same", "wrong", "right", "again", "ended"))
    )


if __name__ == "__main__":
    main()
