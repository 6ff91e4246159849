"""Every stored PyTorch number of a kernel, outputs and gradients, on every backend."""

import numpy as np
import pytest
from reference_cases import all_cases, assert_reproduces, load

import kernels


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", all_cases(), ids=str)
@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_reproduces_pytorch(backend, case, dtype):
    assert_reproduces(kernels.get(backend), case, np.dtype(dtype))


def test_all_cases_are_read():
    counts = {group: len(load(group)) for group in ("conv2d", "conv_transpose2d", "batch_norm", "max_pool2d")}
    assert counts == {"conv2d": 16, "conv_transpose2d": 10, "batch_norm": 10, "max_pool2d": 24}
    assert (len(load("roi_pool")), len(load("roi_align"))) == (10, 28)
    assert len(load("interpolate")) == 10
    assert len(load("losses")) == 20
    assert len(all_cases()) == 16 + 10 + 8 + 24 + 10 + 28 + 10 + 20
