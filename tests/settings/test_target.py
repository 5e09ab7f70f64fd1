import pytest

from edgekd.errors import UsageError
from edgekd.settings.target import CpuTarget, CudaTarget, TensorrtTarget, planned_precisions


def test_a_plan_chooses_among_files_that_it_can_measure():
    assert planned_precisions(CpuTarget(precisions=("int8",))) == ("int8",)
    assert planned_precisions(CudaTarget()) == ("fp32",)
    # TensorRT computes the FP32 file in FP16.
    assert planned_precisions(TensorrtTarget()) == ("fp32",)


def test_fp16_alone_leaves_nothing_to_choose():
    with pytest.raises(UsageError, match="--precision fp16: FP16 is an extra file"):
        planned_precisions(CudaTarget(precisions=("fp16",)))
