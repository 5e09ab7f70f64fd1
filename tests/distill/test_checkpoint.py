import pytest
import torch

from edgekd.distill.checkpoint import Checkpoint, State


def made(folder, steps, best=True):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = Checkpoint(folder)
    state = State(step=steps, best_score=0.5 if best else float("-inf"), best_step=steps)
    checkpoint.save(state, model, optimizer, {"weight": model.weight.detach().clone()} if best else {})
    return checkpoint, model, optimizer


@pytest.mark.parametrize("best", [True, False])
def test_what_was_saved_is_restored(tmp_path, best):
    checkpoint, model, optimizer = made(tmp_path, 7, best)
    wanted = model.weight.detach().clone()
    torch.nn.init.zeros_(model.weight)
    state, kept = checkpoint.load(model, optimizer)
    assert (state.step, set(kept)) == (7, {"weight"} if best else set())
    assert torch.equal(model.weight, wanted)


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors", "best.safetensors"])
@pytest.mark.parametrize("harm", ["gone", "short"])
def test_a_checkpoint_that_is_not_whole_is_none(tmp_path, name, harm):
    """A kill may come while it is being removed, or a disk may have been full."""
    checkpoint, model, optimizer = made(tmp_path, 7)
    file = tmp_path / "step-00000007" / name
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    before = model.weight.detach().clone()
    assert checkpoint.load(model, optimizer) is None
    assert torch.equal(model.weight, before)


def test_the_newest_that_is_whole_counts(tmp_path):
    made(tmp_path / "a", 7)
    checkpoint, model, optimizer = made(tmp_path / "b", 9)
    (tmp_path / "a" / "step-00000007").rename(tmp_path / "b" / "step-00000007")
    assert checkpoint.load(model, optimizer)[0].step == 9
    (tmp_path / "b" / "step-00000009" / "state.json").unlink()
    assert checkpoint.load(model, optimizer)[0].step == 7
