"""The CUDA kernels against the naive ones: all cases of the shared table, on a GPU or in the simulator."""

import numpy as np
import pytest
from cases import CASES, compare

pytestmark = pytest.mark.cuda

#: Operators whose kernels exist.
OPERATORS = (
    "batch_norm",
    "max_pool2d",
    "upsample2d",
    "roi_pool",
    "roi_align",
    "iou",
    "pasting",
    "conv2d",
    "conv_transpose2d",
    "linear",
    "relu",
    "sigmoid",
    "softmax",
    "add",
    "concat",
    "binary_cross_entropy",
    "cross_entropy",
    "smooth_l1",
    "sigmoid_focal",
    "dice",
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [case for case in CASES if case.operator in OPERATORS], ids=str)
def test_equals_naive(case, dtype):
    compare("cuda", case, dtype)
