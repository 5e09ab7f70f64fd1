import pytest

from edgekd.errors import UsageError
from edgekd.models.shape_text import parse_shape
from edgekd.settings.shape import EncoderShape, HeadShape

TEACHER = EncoderShape(
    vocabulary=30522, positions=512, token_types=2, embedding=768, hidden=768, head_size=64, heads=(12,) * 12,
    ffn=(3072,) * 12, activation="relu", norm_eps=1e-6, head=HeadShape(kind="sequence", labels=3),
)  # fmt: skip


def test_every_number_is_read():
    shape = parse_shape("6x384x1000h12", TEACHER)
    assert (shape.depth, shape.hidden, shape.embedding) == (6, 384, 384)
    assert shape.ffn == (1000,) * 6
    assert shape.heads == (12,) * 6
    assert shape.head_size == 32


def test_what_is_left_out_has_its_default():
    shape = parse_shape(" 4x256 ", TEACHER)
    assert shape.ffn == (1024,) * 4
    assert (shape.heads, shape.head_size) == ((4,) * 4, 64)
    assert (shape.vocabulary, shape.positions, shape.token_types) == (30522, 512, 2)
    assert (shape.activation, shape.norm_eps) == ("relu", 1e-6)
    assert shape.head is None
    assert parse_shape("4x256h8", TEACHER).ffn == (1024,) * 4


def test_minilm_has_the_published_size():
    """22.7 M parameters: MiniLM-L6-H384 less its pooler (Wang et al., 2020)."""
    assert parse_shape("6x384x1536h12", TEACHER).parameters() == pytest.approx(22.57e6, rel=1e-3)


@pytest.mark.parametrize("text", ["", "6", "6x", "x384", "6x384x", "6x384h", "6X384", "6x384x1x1", "a6x384", "6x-384"])
def test_other_forms_are_refused(text):
    with pytest.raises(UsageError, match=r"write LAYERSxHIDDEN\[xFFN\]\[hHEADS\], such as 6x384x1536h12"):
        parse_shape(text, TEACHER)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("0x384", "every number must be at least 1"),
        ("6x384h0", "every number must be at least 1"),
        ("6x384h7", "7 heads do not divide the width 384; 12 would"),
        ("6x312", "width 312 is no multiple of 64, the teacher's head size; .*, such as 6x312h12"),
    ],
)
def test_heads_must_divide_the_width(text, line):
    with pytest.raises(UsageError, match=line):
        parse_shape(text, TEACHER)
