from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import EdgekdError, ExitCode, UsageError
from edgekd.graph.parity import compare_logits, load_session, run_onnx
from edgekd.records.export import Parity

from .conftest import make_batch, make_shape


def test_gap_and_agreement_by_hand():
    reference = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    candidate = np.array([[1.5, 2.0], [3.0, 0.25], [0.75, 0.5], [5.0, 4.0]])
    assert compare_logits(reference, candidate) == Parity(rows=4, max_abs_gap=0.75, label_agreement=0.75)
    assert compare_logits(reference, reference) == Parity(rows=4, max_abs_gap=0.0, label_agreement=1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value):
    good, bad = np.zeros((5, 3), np.float32), np.zeros((5, 3), np.float32)
    bad[[2, 4], 1] = value
    with pytest.raises(EdgekdError, match="candidate's logits hold NaN or infinity in 2 of 5 rows, first in row 3"):
        compare_logits(good, bad)
    with pytest.raises(EdgekdError, match="reference's logits"):
        compare_logits(bad, good)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((0, 3), (0, 3)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))])
def test_other_shapes_are_refused(shapes):
    with pytest.raises(EdgekdError, match=r"two arrays \(rows, labels\)"):
        compare_logits(*(np.zeros(shape) for shape in shapes))


def test_threads(student):
    path, _ = student(make_shape())
    options = load_session(path, threads=2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert load_session(path).get_session_options().intra_op_num_threads == 1
    assert load_session(path).get_providers() == ["CPUExecutionProvider"]


def test_superfluous_inputs_are_left_out_and_missing_ones_named(student):
    shape = make_shape(token_types=0)
    path, _ = student(shape)
    batch = make_batch(shape, 2, 4)
    plain, more = run_onnx(path, [batch, batch | {"token_type_ids": batch["input_ids"]}])
    assert (plain == more).all()
    with pytest.raises(EdgekdError, match=f"{path.name}: the batch lacks the model's input attention_mask"):
        run_onnx(path, [{"input_ids": batch["input_ids"]}])


def test_files_that_cannot_be_loaded(tmp_path):
    with pytest.raises(UsageError, match=r"none\.onnx: no such ONNX file"):
        load_session(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model at all")
    with pytest.raises(EdgekdError, match=r"broken\.onnx: onnxruntime cannot load it") as caught:
        load_session(tmp_path / "broken.onnx")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.ERROR
