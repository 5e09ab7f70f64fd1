import numpy as np
import pytest

from edgekd.errors import UsageError
from edgekd.latency.table import LatencyTable, design, fit, measure_table, narrowed
from edgekd.latency.targets.build import build_target
from edgekd.settings.export import GraphOptions
from edgekd.settings.shape import EncoderShape, HeadShape
from edgekd.settings.target import FakeTarget

TEACHER = EncoderShape(
    vocabulary=50, positions=32, token_types=2, embedding=64, hidden=64, head_size=8, heads=(8,) * 6, ffn=(256,) * 6
)


def true_ms(shape):
    """A device whose attention bends with heads and whose FFN bends with neurons."""
    layers = zip(shape.heads, shape.ffn, strict=True)
    return 0.2 + sum(0.05 + 0.02 * h + 0.01 * max(0, h - 4) + 0.001 * f + 0.0005 * max(0, f - 128) for h, f in layers)


def test_fit_recovers_a_piecewise_linear_device():
    shapes = design(TEACHER, 64)
    costs = fit(64, "fp32", shapes, np.array([true_ms(s) for s in shapes]), TEACHER)
    assert costs.residual < 1e-3
    rng = np.random.default_rng(0)
    table = LatencyTable(batch_size=1, length=16, costs=(costs,))
    for _ in range(30):
        depth = rng.integers(1, 7)
        shape = narrowed(
            TEACHER, 64, rng.choice([2, 4, 6, 8], depth).tolist(), rng.choice([32, 64, 128, 200, 256], depth).tolist()
        )
        assert table.median_ms(shape, "fp32") == pytest.approx(true_ms(shape), rel=0.01)


def test_the_last_layer_costs_what_its_one_token_costs():
    """Where the head reads the first token alone, the last layer's price is its own."""
    teacher = TEACHER.model_copy(update={"head": HeadShape(kind="sequence", labels=2)})

    def pooled_ms(shape):
        whole = shape.model_copy(update={"heads": shape.heads[:-1] or (1,), "ffn": shape.ffn[:-1] or (1,)})
        others = true_ms(whole) if shape.depth > 1 else 0.2
        return others + 0.03 + 0.004 * shape.heads[-1] + 0.0001 * shape.ffn[-1]

    shapes = design(teacher, 64)
    costs = fit(64, "fp32", shapes, np.array([pooled_ms(s) for s in shapes]), teacher)
    assert costs.residual < 1e-3
    assert costs.last == pytest.approx((0.004, 0.0001), rel=0.05)
    rng = np.random.default_rng(0)
    for _ in range(30):
        depth = rng.integers(1, 7)
        shape = narrowed(teacher, 64, rng.integers(1, 9, depth).tolist(), rng.integers(32, 257, depth).tolist())
        assert costs.whole_ms(shape.heads, shape.ffn) == pytest.approx(pooled_ms(shape), rel=0.03)


def test_table_of_the_fake_target_predicts_it():
    target = build_target(FakeTarget(gflops=0.1, noise=0.0))
    table = measure_table(
        target, TEACHER, [64, 32], ["fp32", "int8"], batch_size=1, length=16, options=GraphOptions(),
        instruction_set="avx2", rounds=1, calls=2,
    )  # fmt: skip
    assert {(c.width, c.precision) for c in table.costs} == {(64, "fp32"), (64, "int8"), (32, "fp32"), (32, "int8")}
    assert all(c.residual < 0.02 for c in table.costs)
    whole = table.median_ms(TEACHER, "fp32")
    assert table.median_ms(TEACHER, "int8") < 0.7 * whole
    assert table.median_ms(narrowed(TEACHER, 32, TEACHER.heads, TEACHER.ffn), "fp32") < 0.7 * whole


@pytest.mark.parametrize("bend", [0.0, 0.02])
def test_a_bend_is_found_and_predicted(bend):
    """Deep models cost more than the sum of their layers, as where weights outgrow a cache."""
    shapes = design(TEACHER, 64)
    sums = np.array([true_ms(s) for s in shapes])
    bent = bend / sums.max() * 10
    costs = fit(64, "fp32", shapes, sums + bent * sums**2, TEACHER)
    assert costs.bend == pytest.approx(bent, rel=0.35, abs=2e-3)
    rng = np.random.default_rng(0)
    for _ in range(20):
        depth = int(rng.integers(1, TEACHER.depth + 1))
        shape = narrowed(TEACHER, 64, rng.integers(1, 9, depth).tolist(), rng.integers(32, 257, depth).tolist())
        straight = true_ms(shape)
        assert costs.whole_ms(shape.heads, shape.ffn) == pytest.approx(straight + bent * straight**2, rel=0.03)
        assert costs.straight_ms(costs.whole_ms(shape.heads, shape.ffn)) == pytest.approx(straight, rel=0.05)


def test_unmeasured_width_is_refused():
    table = LatencyTable(batch_size=1, length=16, costs=())
    with pytest.raises(UsageError, match="no entry for width 64"):
        table.median_ms(TEACHER, "fp32")


def test_design_stays_inside_the_teacher():
    for shape in design(TEACHER, 32):
        assert shape.hidden == 32
        assert shape.depth <= 6
        assert max(shape.heads) <= 8
        assert max(shape.ffn) <= 256


def test_teacher_with_one_head_can_be_fitted():
    tiny = TEACHER.model_copy(update={"heads": (1, 1), "ffn": (2, 2)})
    shapes = design(tiny, 64)
    costs = fit(64, "fp32", shapes, np.array([true_ms(s) for s in shapes]), tiny)
    assert costs.residual < 0.05
