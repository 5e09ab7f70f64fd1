"""Texts changed at every step: what is changed, what never is, and whose mask it is."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from edgekd.distill.on_the_fly import Augmentation, augmentation, draw_share
from edgekd.errors import UsageError
from edgekd.models.teacher import load_body
from edgekd.settings.distill import TokenChange

MASK, SPECIAL = 4, (0, 1, 2, 3, 4)


def texts(count=200):
    """[CLS] 10 words [SEP] and padding; each text has words of its own."""
    ids = torch.arange(5, 5 + count * 10).view(count, 10)
    ids = torch.cat([torch.full((count, 1), 2), ids, torch.full((count, 1), 3), torch.full((count, 4), 7)], dim=1)
    mask = torch.ones_like(ids)
    mask[:, 12:] = 0
    return ids, mask


@pytest.mark.parametrize(
    "spec",
    [TokenChange(name="mask_tokens", ratio=0.3), TokenChange(name="swap_tokens", ratio=0.3)],
    ids=lambda spec: spec.name,
)
def test_a_share_of_the_words_changes_and_nothing_else(spec):
    torch.manual_seed(0)
    ids, mask = texts()
    before = ids.clone()
    augment = Augmentation(spec, SPECIAL, MASK if spec.name == "mask_tokens" else None)
    found = augment(ids, mask)
    assert torch.equal(ids, before)
    outside = [0, *range(11, 16)]
    assert torch.equal(found[:, outside], ids[:, outside])
    if spec.name == "mask_tokens":
        assert (found[found != ids] == MASK).all()
        assert ((found != ids).sum(dim=1) == 3).all()
    else:
        assert torch.isin(found[found != ids], ids[:, 1:11]).all()
        assert (found != ids).float().sum(dim=1).mean() == pytest.approx(3, abs=0.05)
    # Every place has its turn.
    assert (found != ids)[:, 1:11].any(dim=0).all()


def test_the_step_seed_decides_and_the_next_step_differs():
    ids, mask = texts(8)
    augment, found = Augmentation(TokenChange(name="mask_tokens"), SPECIAL, MASK), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(augment(ids, mask))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    "spec", [TokenChange(name="mask_tokens"), TokenChange(name="swap_tokens")], ids=lambda spec: spec.name
)
def test_a_short_text_changes_by_one_word_and_an_empty_one_not(spec):
    ids = torch.tensor([[2, 7, 8, 3], [2, 3, 0, 0]])
    chosen = draw_share((ids > 4), 0.15)
    assert chosen.sum(dim=1).tolist() == [1, 0]
    assert torch.equal(Augmentation(spec, SPECIAL, MASK)(ids, (ids > 0).long())[1], ids[1])
    empty = ids[1:]
    assert torch.equal(Augmentation(spec, SPECIAL)(empty, (empty > 0).long()), empty)


def test_mask_and_special_tokens_are_the_teachers(tiny_encoder):
    teacher = load_body(tiny_encoder)
    found = augmentation(TokenChange(name="mask_tokens"), teacher)
    known = teacher.tokenizer.token_to_id
    assert found.mask == known("[MASK]")
    assert set(found.special) == {known(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    assert augmentation(None, teacher) is None


def test_a_tokenizer_without_a_mask_is_refused_and_swaps(tiny_encoder, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    # The place stays taken, as in a vocabulary that has no mask.
    vocabulary["other"] = vocabulary.pop("[MASK]")
    (folder / "tokenizer.json").write_text(json.dumps(content))
    teacher = load_body(folder)
    # transformers knows a name of the mask, and would give it an id beyond the word embedding.
    with pytest.raises(UsageError, match=r"on_the_fly mask_tokens: .*no mask token; take swap_tokens"):
        augmentation(TokenChange(name="mask_tokens"), teacher)
    swaps = augmentation(TokenChange(name="swap_tokens"), teacher)
    assert swaps.mask is None
    assert max(swaps.special) < len(vocabulary)
    with pytest.raises(UsageError, match="its tokenizer cannot be read"):
        augmentation(TokenChange(name="swap_tokens"), replace(teacher, folder=tmp_path / "none"))
