import pytest
from pydantic import TypeAdapter, ValidationError

from edgekd.settings.augment import AugmentationSpec, MaskFill, Swap

ADAPTER = TypeAdapter(AugmentationSpec)


def test_a_policy_is_found_by_its_name():
    assert ADAPTER.validate_python({"name": "swap", "ratio": 0.3}) == Swap(ratio=0.3)
    spec = MaskFill(masked_lm="folder", copies=20)
    assert ADAPTER.validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "synonyms"},
        {"name": "swap", "ratio": 0},
        {"name": "delete", "ratio": 1.1},
        {"name": "typos", "copies": 0},
        {"name": "casing", "styles": []},
        {"name": "mask_fill"},
        {"name": "back_translation", "there": "a", "back": "b", "top_p": 0},
        {"name": "swap", "labels": True},
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(wrong)
