"""Rung 4 of conv2d: what is loaded once is used more often."""

import numpy as np
from numba import prange

from kernels.jit import RELAXED, jit
from kernels.ladder.conv2d.arguments import padded, prepare
from kernels.ladder.conv2d.rung2_order import convolve_plane

#: Output channels per pass.
CHANNELS = 4


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    """Convolve with four output channels and a kernel row of three in each pass over the pixels.

    Changes: a task is four neighbouring output channels. A pass over a row adds twelve products to each pixel's four
    sums: four channels times the three kernel columns. What does not fit (channels left over, other kernel widths) is
    computed as before.

    Why: rung 3 loads a pixel and a sum, and stores the sum, for a single multiply-add: the load and store units are
    busy while the multipliers wait. Here three pixels and four sums are loaded, and four sums stored, for twelve.

    Measured: 50 GFLOP/s per core. Parameters: see `kernels.ladder.conv2d`.
    """
    x, weight, bias, g = prepare(x, weight, bias, stride, padding)
    y = np.empty((g.N, g.O, g.oH, g.oW), x.dtype)
    _reuse_kernel(y, padded(x, g), weight, bias, g.sH)
    return y


@jit(parallel=True)
def _reuse_kernel(y, x, weight, bias, stride):
    N, O = y.shape[:2]
    blocks = (O + CHANNELS - 1) // CHANNELS
    for task in prange(N * blocks):
        n, first = np.int64(task) // blocks, np.int64(task) % blocks * CHANNELS
        _convolve_block(y[n], x[n], weight, bias, first, stride)


@jit
def _convolve_block(y, x, weight, bias, first, stride):
    """Compute the output channels from ``first`` on: four, or what is left."""
    last = min(first + CHANNELS, y.shape[0])
    if last - first == CHANNELS and weight.shape[3] == 3:
        _convolve_four(y[first:last], x, weight[first:last], bias[first:last], stride)
    else:
        for o in range(first, last):
            convolve_plane(y[o], x, weight[o], bias[o], stride)


@jit(fastmath=RELAXED)
def _convolve_four(y, x, weight, bias, stride):
    step = x.shape[2]
    for oy in range(y.shape[1]):
        sums0, sums1, sums2, sums3 = y[0, oy], y[1, oy], y[2, oy], y[3, oy]
        sums0[:], sums1[:], sums2[:], sums3[:] = bias
        for c in range(weight.shape[1]):
            for ky in range(weight.shape[2]):
                row = x[c, oy * stride + ky]
                left, middle, right = row[0], row[1 % step, 1 // step :], row[2 % step, 2 // step :]
                a0, b0, c0 = weight[0, c, ky]
                a1, b1, c1 = weight[1, c, ky]
                a2, b2, c2 = weight[2, c, ky]
                a3, b3, c3 = weight[3, c, ky]
                for ox in range(sums0.size):
                    sums0[ox] += a0 * left[ox] + b0 * middle[ox] + c0 * right[ox]
                    sums1[ox] += a1 * left[ox] + b1 * middle[ox] + c1 * right[ox]
                    sums2[ox] += a2 * left[ox] + b2 * middle[ox] + c2 * right[ox]
                    sums3[ox] += a3 * left[ox] + b3 * middle[ox] + c3 * right[ox]
