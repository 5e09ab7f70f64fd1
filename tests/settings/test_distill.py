"""What a stage's dump holds is part of the key of everything trained: it must stay as it was."""

import json

import pytest
from pydantic import ValidationError

from edgekd.profiles import load_profile
from edgekd.settings.distill import Mixup, Stage, TokenChange
from edgekd.settings.losses import HardCE
from edgekd.settings.profile import override

TRAINING = (
    '{"epochs": 4.0, "batch_size": 32, "learning_rate": 0.0005, "head_rate": 1.0, "warmup": 0.1, "weight_decay": 0.01, '
    '"dropout": 0.0, "freeze_words": true, "max_grad_norm": 1.0, "evaluations": 8, "patience": 4, "precision": "auto"}'
)
STAGE = (
    '{"loss": {"name": "kl", "temperature": 2.0}, "data": "transfer", "hard_weight": 0.0, "mixup": null, "training": '
    f'{TRAINING}, "max_steps": null}}'
)


def test_defaults_dump_as_before_there_was_on_the_fly():
    assert json.dumps(Stage().model_dump(mode="json")) == STAGE
    assert json.dumps(Stage().training.model_dump()) == TRAINING
    assert Stage().model_dump_json() == STAGE.replace(", ", ",").replace(": ", ":")


def test_what_was_asked_for_is_part_of_the_key_and_is_read_back():
    asked = Stage(on_the_fly=TokenChange(name="mask_tokens", ratio=0.2))
    content = asked.model_dump(mode="json")
    assert content["on_the_fly"] == {"name": "mask_tokens", "ratio": 0.2, "weight": 1.0}
    assert Stage.model_validate_json(asked.model_dump_json()) == asked


def test_it_is_set_by_a_dotted_name():
    changes = {"distill.stages.0.on_the_fly": {"name": "swap_tokens", "ratio": 0.3}}
    (stage,) = override(load_profile("cpu"), changes).distill.stages
    assert stage.on_the_fly == TokenChange(name="swap_tokens", ratio=0.3)


def test_a_stage_that_runs_its_teacher_says_so():
    assert not Stage().online
    assert Stage(mixup=Mixup()).online
    assert Stage(on_the_fly=TokenChange(name="mask_tokens")).online
    assert Stage.model_validate({"loss": {"name": "pkd"}}).online


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"on_the_fly": {"name": "mask_tokens"}, "mixup": {}}, "on_the_fly: a stage has changed texts or mixed ones"),
        ({"on_the_fly": {"name": "mask_tokens"}, "loss": HardCE()}, "on_the_fly: changed texts have no gold label"),
        ({"on_the_fly": {"name": "synonyms"}}, "on_the_fly"),
        ({"on_the_fly": {"name": "mask_tokens", "ratio": 1.0}}, "on_the_fly.ratio"),
    ],
)
def test_what_does_not_go_together_is_refused(content, line):
    with pytest.raises(ValidationError, match=line):
        Stage.model_validate(content)
