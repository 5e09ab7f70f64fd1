import numpy as np
import pytest

from edgekd.errors import UsageError
from edgekd.models.checkpoint import checkpoint_shape, checkpoint_weights, load_checkpoint
from edgekd.models.student import from_weights


@pytest.mark.parametrize(("kind", "activation"), [("sequence", "tanh"), ("token", None)])
def test_head_is_new_and_the_rest_is_the_checkpoints(tiny_encoder, kind, activation):
    encoder = load_checkpoint(str(tiny_encoder))
    shape = checkpoint_shape(encoder, kind, 3)
    assert (shape.head.kind, shape.head.labels, shape.head.activation) == (kind, 3, activation)
    weights = checkpoint_weights(encoder, shape, seed=0)
    assert {name: array.shape for name, array in weights.items()} == shape.weight_shapes()
    assert all(np.array_equal(weights[name], array) for name, array in encoder.hosted[1].items())
    assert np.std(weights["head.output.weight"]) == pytest.approx(0.02, rel=0.4)
    again, other = (checkpoint_weights(encoder, shape, seed) for seed in (0, 1))
    assert np.array_equal(again["head.output.weight"], weights["head.output.weight"])
    assert not np.array_equal(other["head.output.weight"], weights["head.output.weight"])
    from_weights(shape, weights, ["a", "b", "c"])


def test_hub_ids_are_no_folders():
    with pytest.raises(UsageError, match=r"distill\.init\.folder: org/name: there is no such folder"):
        load_checkpoint("org/name")
