"""What every rung of conv2d for CUDA does first, and what several of them share."""

from numba.types import NamedUniTuple, int64

from kernels import checks
from kernels.cuda.array import empty, on_device, zeros
from kernels.cuda.gemm import inlined

#: The geometry as an argument of kernels.
GEOMETRY = NamedUniTuple(int64, len(checks.ConvGeometry._fields), checks.ConvGeometry)


def prepare(x, weight, bias, stride, padding):
    """Return ``y, x, weight, bias`` on the device, the result to be filled, and the geometry of the convolution."""
    *arrays, g = checks.conv2d(x, weight, bias, stride, padding, 1, 1)
    x, weight, bias = on_device(*arrays)
    if bias is None:
        bias = zeros((g.O,), x.dtype)
    if not g.C:  # no channels give what one channel of zeros gives
        g = g._replace(C=1)
        x, weight = zeros((g.N, 1, g.H, g.W), x.dtype), zeros((g.O, 1, g.kH, g.kW), x.dtype)
    return empty((g.N, g.O, g.oH, g.oW), x.dtype), x, weight, bias, g


@inlined
def place_of(pixel, g):
    """Return picture, row and column of an output pixel; pixels are counted through all pictures."""
    return pixel // (g.oH * g.oW), pixel // g.oW % g.oH, pixel % g.oW


@inlined
def pixel_under(x, n, c, iy, ix, g):
    """Return a pixel of the input, 0 outside of the picture."""
    value = x.dtype.type(0)
    if n < g.N and c < g.C and iy >= 0 and iy < g.H and ix >= 0 and ix < g.W:
        value = x[n, c, iy, ix]
    return value
