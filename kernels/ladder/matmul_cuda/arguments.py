"""What every rung of matmul does first."""

from kernels import checks
from kernels.cuda.array import empty, on_device, zeros


def prepare(a, b):
    """Return ``y, a, b`` on the device, checked: the result, to be filled, and both factors."""
    a = checks.array("a", a, 2)
    b = checks.array("b", b, 2, a.dtype)
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"b has shape {b.shape}; expected {a.shape[1]} rows, as many as a has columns")
    a, b = on_device(a, b)
    if not a.shape[1]:  # a sum of nothing is that of one product of zeros
        a, b = zeros((a.shape[0], 1), a.dtype), zeros((1, b.shape[1]), a.dtype)
    return empty((a.shape[0], b.shape[1]), a.dtype), a, b
