"""The CUDA kernels against the naive ones: the cases of the shared table, on a GPU or in the simulator."""

import numpy as np
import pytest
from cases import CASES, compare

pytestmark = pytest.mark.cuda

#: All operators of the table but suppression, whose many boxes are too slow in the simulator: test_cuda_rois.py runs
#: what it can.
OPERATORS = tuple(sorted({case.operator for case in CASES} - {"suppression"}))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [case for case in CASES if case.operator in OPERATORS], ids=str)
def test_equals_naive(case, dtype):
    compare("cuda", case, dtype)
