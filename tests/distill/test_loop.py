import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgekd.distill.batches import count_batches, epoch_batches, fingerprint
from edgekd.distill.loop import _groups, train
from edgekd.distill.objective import LabelObjective
from edgekd.distill.on_the_fly import Augmentation
from edgekd.errors import EdgekdError
from edgekd.runtime.encodings import Encodings
from edgekd.settings.distill import TokenChange, Training


class Toy(nn.Module):
    """Mean embedding, dropout, linear: small, but with all that a resumed run could get wrong."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embedding, self.dropout, self.output = nn.Embedding(20, 8), nn.Dropout(0.3), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        states = self.dropout(self.embedding(input_ids)) * attention_mask[..., None]
        logits = self.output(states.sum(1) / attention_mask.sum(1, keepdim=True))
        return type("Output", (), {"logits": logits})


def toy_encodings(count=50, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 9, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Encodings(rng.integers(1, 20, offsets[-1]).astype(np.int32), offsets)


def run(work, engine, *, stop_after=None, seed=0, max_steps=None, **changes):
    encodings = toy_encodings()
    targets = torch.arange(50) % 3
    spec = Training(epochs=4, learning_rate=1e-2, batch_size=8, precision="fp32", patience=9, **changes)
    seen = []

    class Objective:
        """Cross-entropy, and a scale learned beside the model, which must be resumed too."""

        def __init__(self):
            self.module = nn.Linear(1, 1)
            nn.init.ones_(self.module.weight)

        def __call__(self, model, batch):
            seen.append(len(batch.indices))
            if stop_after is not None and len(seen) > stop_after:
                raise KeyboardInterrupt
            rows = batch.rows(model(**batch.inputs).logits) * self.module.weight
            return {"toy": nn.functional.cross_entropy(rows, batch.of(targets))}

    model = Toy()

    def judge(model):
        return -float(model.output.bias.detach().norm())

    trained = train(model, encodings, Objective(), judge, spec, engine, work, "toy", seed=seed, max_steps=max_steps)
    return model, trained


@pytest.mark.parametrize("stop_after", [1, 7, 13, 26])
def test_interrupted_run_ends_with_the_same_bytes(tmp_path, engine, monkeypatch, stop_after):
    monkeypatch.setattr("edgekd.distill.loop._CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("edgekd.distill.loop._SAVING_SHARE", 1e9)
    whole, expected = run(tmp_path / "whole", engine)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", engine, stop_after=stop_after)
    resumed, found = run(tmp_path / "cut", engine)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert [p["score"] for p in found.points] == [p["score"] for p in expected.points]
    assert [p["loss"] for p in found.points] == pytest.approx([p["loss"] for p in expected.points])


@dataclass(frozen=True)
class Changed(LabelObjective):
    """Texts changed at every step, as a stage with `on_the_fly` has them."""

    def __call__(self, model, batch):
        changed = Augmentation(TokenChange(name="mask_tokens", ratio=0.5), (), 0)(batch.inputs["input_ids"], batch.mask)
        return super().__call__(model, replace(batch, inputs={**batch.inputs, "input_ids": changed}))


def test_interrupted_run_changes_the_same_texts(tmp_path, engine, monkeypatch):
    monkeypatch.setattr("edgekd.distill.loop._CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("edgekd.distill.loop._SAVING_SHARE", 1e9)
    spec = Training(epochs=3, learning_rate=1e-2, batch_size=8, precision="fp32")
    looks = []

    def trained(folder, objective, last=99):
        def judge(_):
            looks.append(0)
            if len(looks) > last:
                raise KeyboardInterrupt
            return 0.1 * len(looks)

        looks.clear()
        model = Toy()
        train(model, toy_encodings(), objective, judge, spec, engine, tmp_path / folder, "toy", seed=0)
        return model.output.weight

    targets = torch.arange(50) % 3
    whole, plain = trained("whole", Changed(targets)), trained("plain", LabelObjective(targets))
    with pytest.raises(KeyboardInterrupt):
        trained("cut", Changed(targets), last=3)
    assert torch.equal(trained("cut", Changed(targets)), whole)
    assert not torch.equal(plain, whole)


def test_seed_changes_the_result(tmp_path, engine):
    one, _ = run(tmp_path / "a", engine, seed=0)
    two, _ = run(tmp_path / "b", engine, seed=1)
    assert not torch.equal(one.output.weight, two.output.weight)


def test_best_look_is_kept_and_patience_stops(tmp_path, engine):
    encodings, targets, scores = toy_encodings(), torch.arange(50) % 3, iter([0.1, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    spec = Training(epochs=8, learning_rate=1e-2, batch_size=8, precision="fp32", evaluations=8, patience=2)
    kept = []

    def evaluate(model):
        kept.append(model.output.weight.detach().clone())
        return next(scores)

    model = Toy()
    trained = train(model, encodings, LabelObjective(targets), evaluate, spec, engine, tmp_path, "toy", seed=0)
    assert trained.best_score == 0.9
    assert len(trained.points) == 4
    assert trained.steps < trained.planned_steps
    assert torch.equal(model.output.weight, kept[1])


def test_what_diverges_after_a_good_look_leaves_the_best_weights(tmp_path, engine):
    encodings, targets = toy_encodings(), torch.arange(50) % 3
    spec = Training(epochs=2, learning_rate=1e-2, evaluations=2, precision="fp32")
    scores = iter([0.5, float("nan")])
    with pytest.raises(EdgekdError, match=r"the weights became NaN.*, the best so far, are in") as error:
        train(Toy(), encodings, LabelObjective(targets), lambda _: next(scores), spec, engine, tmp_path, "toy", seed=0)
    assert str(tmp_path / "best.safetensors") in str(error.value)
    assert (tmp_path / "best.safetensors").is_file()


def test_nan_stops_with_the_step_and_the_mend(tmp_path, engine):
    spec = Training(epochs=1, learning_rate=1e-2, precision="fp32")

    class Broken(LabelObjective):
        def __call__(self, model, batch):
            good = super().__call__(model, batch)
            return good | {"soft": good["labels"] * float("nan")}

    with pytest.raises(EdgekdError, match=r"the loss \(soft\) became nan at step 0: lower the learning rate"):
        train(Toy(), toy_encodings(), Broken(torch.arange(50) % 3), lambda m: 0.0, spec, engine, tmp_path, "t", seed=0)


def test_max_steps_cuts_the_schedule(tmp_path, engine):
    _, trained = run(tmp_path, engine, max_steps=5)
    assert (trained.steps, trained.planned_steps) == (5, 5)


def test_epoch_batches_hold_every_text_once_and_differ_by_epoch():
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    first, second = epoch_batches(lengths, 32, 0, 0), epoch_batches(lengths, 32, 0, 1)
    for batches in (first, second):
        assert sorted(np.concatenate(batches)) == list(range(1000))
    assert [list(b) for b in first] != [list(b) for b in second]
    spread = np.mean([lengths[b].max() - lengths[b].min() for b in first])
    assert spread < 10


@pytest.mark.parametrize(("texts", "size"), [(1, 4), (4, 4), (5, 4), (6, 4), (9, 1), (257, 4), (64 * 4 + 1, 4)])
def test_no_text_is_alone_in_its_batch(texts, size):
    batches = epoch_batches(np.full(texts, 5), size, 0, 0)
    assert len(batches) == count_batches(texts, size)
    assert sorted(np.concatenate(batches)) == list(range(texts))
    assert texts == 1 or size == 1 or min(map(len, batches)) > 1


def test_fingerprint_tells_texts_apart():
    one, two = toy_encodings(), toy_encodings(seed=1)
    assert fingerprint(one) == fingerprint(toy_encodings())
    assert fingerprint(one) != fingerprint(two)


KILLED = """
import sys, time
from pathlib import Path
import edgekd.distill.loop as loop
from edgekd.distill.engine import Engine
from tests.distill.test_loop import run
loop._CHECKPOINT_SECONDS, loop._SAVING_SHARE = 0.0, 1e9
slow = float(sys.argv[2])
step = loop._Run._step
def slower(self):
    step(self)
    print(self.state.step, flush=True)
    time.sleep(slow)
loop._Run._step = slower
model, _ = run(Path(sys.argv[1]), Engine.detect(threads=1))
from safetensors.torch import save_file
save_file(model.state_dict(), sys.argv[1] + "/final.safetensors")
"""


@pytest.mark.slow
def test_kill_minus_nine_in_the_middle_and_resume(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}

    def start(folder, slow):
        command = [sys.executable, str(script), str(tmp_path / folder), str(slow)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    killed = start("killed", 0.05)
    for line in killed.stdout:
        if int(line) >= 9:
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.wait()
    assert not (tmp_path / "killed" / "final.safetensors").exists()
    for folder in ("killed", "whole"):
        process = start(folder, 0.0)
        first = process.stdout.readline()
        process.communicate(timeout=120)
        assert process.returncode == 0
        assert (int(first) > 1) == (folder == "killed")
    a, b = (load_file(tmp_path / f / "final.safetensors") for f in ("killed", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_checkpoints_are_safetensors_and_json_only(tmp_path, engine):
    run(tmp_path, engine)
    files = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert files == ["best.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]
    json.loads(next(tmp_path.rglob("state.json")).read_text())


def test_frozen_words_stay_and_all_else_moves(tmp_path, engine, tiny_encoder):
    from edgekd.models.teacher import load_encoder

    model = load_encoder(tiny_encoder, ("a", "b", "c"), "sequence")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    targets = torch.arange(50) % 3
    spec = Training(epochs=1, learning_rate=1e-2, batch_size=8, precision="fp32", evaluations=1, freeze_words=True)
    train(model, toy_encodings(), LabelObjective(targets), lambda m: 0.0, spec, engine, tmp_path, "t", seed=0)
    same = [name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])]
    assert same == ["bert.embeddings.word_embeddings.weight"]


def test_head_learns_faster_and_only_matrices_decay():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "classifier": nn.Linear(2, 2)})
    spec = Training(epochs=1, learning_rate=1e-3, head_rate=10, weight_decay=0.1)
    found = {(*g["params"][0].shape, g["peak"]): g["weight_decay"] for g in _groups(nn.ModuleList([model]), spec)}
    assert found == {(2, 2, 1e-3): 0.1, (2, 1e-3): 0.0, (2, 2, 1e-2): 0.1, (2, 1e-2): 0.0}


def test_the_weights_it_begins_with_may_be_the_best(tmp_path, engine):
    encodings, model = toy_encodings(), Toy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = iter([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    spec = Training(epochs=4, learning_rate=1e-2, batch_size=8, precision="fp32", evaluations=4, patience=2)
    found = train(
        model, encodings, LabelObjective(torch.arange(50) % 3), lambda _: next(scores), spec, engine, tmp_path, "",
        seed=0, judge_start=True,
    )  # fmt: skip
    assert (found.best_score, found.best_step) == (0.9, 0)
    assert [(point["step"], point["loss"] is None) for point in found.points] == [(0, True), (7, False), (14, False)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
