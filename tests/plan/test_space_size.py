"""The size of a file is known before it is written."""

import pytest

from edgekd.graph.quantize import quantize_dynamic
from edgekd.graph.writer import random_weights, save_model, write_student
from edgekd.plan.space import model_mb, over_size
from edgekd.settings.profile import parse
from edgekd.settings.shape import EncoderShape, HeadShape


@pytest.mark.parametrize(("embedding", "kind", "heads"), [(96, "sequence", (3, 1)), (64, "token", (2,))])
def test_size_is_that_of_the_file(tmp_path, embedding, kind, heads):
    shape = EncoderShape(
        vocabulary=3000,
        positions=512,
        token_types=2,
        embedding=embedding,
        hidden=96,
        head_size=32,
        heads=heads,
        ffn=tuple(128 * h for h in heads),
        head=HeadShape(kind=kind, labels=40, activation="tanh"),
    )
    save_model(write_student(shape, random_weights(shape)), tmp_path / "fp32")
    quantize_dynamic(tmp_path / "fp32", tmp_path / "int8", instruction_set="avx2")
    for precision in ("fp32", "int8"):
        size = (tmp_path / precision).stat().st_size / 1e6
        assert size < model_mb(shape, precision) < 1.025 * size


def test_limit_is_named_and_none_is_none():
    limited = parse({"name": "x", "accept": {"max_mb": 10}}, "test")
    assert over_size(10.0, limited) == ""
    assert over_size(12.34, limited) == "12.3 MB, over --max-mb 10"
    assert over_size(1e6, parse({"name": "x"}, "test")) == ""
