import pytest

from edgekd.models.spec import EncoderShape, HeadShape


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
