"""Rung 1 of conv2d: the formula, one loop per index."""

import numpy as np

from kernels.jit import jit
from kernels.ladder.conv2d.arguments import prepare


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    """Convolve as the formula says: seven loops, and a test for the edge in the innermost.

    Why it is slow: the compiler must keep the products of one sum in order, so each multiply-add waits some four
    cycles for the one before; the test for the edge keeps it from computing several pixels at once.

    Measured: 0.7 GFLOP/s, on one core that could do more than 100. Parameters: see `kernels.ladder.conv2d`.
    """
    x, weight, bias, g = prepare(x, weight, bias, stride, padding)
    y = np.empty((g.N, g.O, g.oH, g.oW), x.dtype)
    _textbook_kernel(y, x, weight, bias, g)
    return y


@jit
def _textbook_kernel(y, x, weight, bias, g):
    for n in range(g.N):
        for o in range(g.O):
            for oy in range(g.oH):
                for ox in range(g.oW):
                    total = bias[o]
                    for c in range(g.C):
                        for ky in range(g.kH):
                            for kx in range(g.kW):
                                iy, ix = oy * g.sH - g.pH + ky, ox * g.sW - g.pW + kx
                                if 0 <= iy < g.H and 0 <= ix < g.W:
                                    total += weight[o, c, ky, kx] * x[n, c, iy, ix]
                    y[n, o, oy, ox] = total
