import pytest

from edgekd.settings.shape import EncoderShape, HeadShape


@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_shapes_without_slots_read_as_they_always_did(kind):
    """Trained students and measurements are kept by this text."""
    assert HeadShape(kind=kind, labels=2).model_dump_json() == f'{{"kind":"{kind}","labels":2,"activation":null}}'


def test_a_joint_head_has_weights_for_slots():
    head = HeadShape(kind="joint", labels=3, activation="tanh", slots=4)
    shape = EncoderShape(
        vocabulary=5, positions=6, token_types=0, embedding=8, hidden=8, head_size=4, heads=(2,), ffn=(7,), head=head
    )
    shapes = shape.weight_shapes()
    assert (shapes["head.output.weight"], shapes["head.slots.weight"], shapes["head.slots.bias"]) == (
        (3, 8),
        (4, 8),
        (4,),
    )
    assert head.columns == 7
    assert EncoderShape.model_validate_json(shape.model_dump_json()) == shape


def test_flops_of_the_last_layer_are_of_the_tokens_that_somebody_reads():
    shape = EncoderShape(
        vocabulary=9, positions=9, token_types=0, embedding=8, hidden=8, head_size=4, heads=(2, 1), ffn=(16, 4),
        head=HeadShape(kind="sequence", labels=2),
    )  # fmt: skip
    first = 2 * 5 * (4 * 8 * 8 + 2 * 8 * 16) + 4 * 5 * 5 * 8
    assert shape.flops(5) == first + 2 * 5 * (4 * 8 * 4 + 2 * 8 * 4) + 4 * 5 * 5 * 4
    # Keys and values of five tokens; a query, its scores, its output and its FFN.
    assert shape.flops(5, whole=False) == first + 2 * 5 * 2 * 8 * 4 + 2 * (2 * 8 * 4 + 2 * 8 * 4) + 4 * 5 * 4
    words = shape.model_copy(update={"head": HeadShape(kind="token", labels=2)})
    assert words.flops(5, whole=False) == words.flops(5) == shape.flops(5)
