"""Convolutions of groups of very few channels, depthwise ones above all: each thread for itself.

A tile of the matrix product would be next to empty here, and there is little to share: a depthwise convolution uses
each value of the input as often as the kernel has cells. So a thread computes one output pixel after the other,
neighbours along the rows, and what several threads read comes from the cache. The places of a pixel's sources are
those of ``implicit_gemm``, so the kernel scatters as well.
"""

import numpy as np
from numba.types import int64

from kernels.cuda.device import cuda, typed_kernel
from kernels.cuda.implicit_gemm import PLAN, phase_axis


@typed_kernel(lambda T: (*(T[::1],) * 6, int64, int64, int64, int64, PLAN))
def direct_kernel(T):
    ZERO = T(0)

    def run(y, x, weight, bias, scale, residual, planes, pixels, transposed, scaled, g):
        """A thread computes one output pixel after the other."""
        first_pixel, plane = cuda.grid(2)
        across, down = cuda.gridsize(2)
        size, taps = g.H * g.W, g.kH * g.kW
        while plane < planes:
            picture, channel = plane // (g.groups * g.M), plane % (g.groups * g.M)
            group, m = channel // g.M, channel % g.M
            source = (picture * g.groups + group) * g.C * size
            if transposed:
                weights, weights_of_channel = (group * g.C * g.M + m) * taps, g.M * taps
            else:
                weights, weights_of_channel = channel * g.C * taps, taps
            pixel = first_pixel
            while pixel < pixels:
                oy, ox = np.int32(pixel) // np.int32(g.oW), np.int32(pixel) % np.int32(g.oW)
                first_y, count_y, start_y = phase_axis(
                    oy % g.modulus_h, g.kH, g.modulus_h, g.padding_h, g.dilation_h, g.skip_h
                )
                first_x, count_x, start_x = phase_axis(
                    ox % g.modulus_w, g.kW, g.modulus_w, g.padding_w, g.dilation_w, g.skip_w
                )
                sy, sx = oy // g.modulus_h * g.scale_h + start_y, ox // g.modulus_w * g.scale_w + start_x
                total = ZERO
                if g.has_bias and not scaled:
                    total = bias[channel]
                for c in range(g.C):
                    for i in range(count_y):
                        iy = sy + i * g.step_h
                        if iy >= 0 and iy < g.H:
                            at = source + c * size + iy * g.W
                            cell = weights + c * weights_of_channel + (first_y + i * g.skip_h) * g.kW + first_x
                            for j in range(count_x):
                                ix = sx + j * g.step_w
                                if ix >= 0 and ix < g.W:
                                    total += weight[np.uint64(cell + j * g.skip_w)] * x[np.uint64(at + ix)]
                if scaled:
                    total *= scale[channel]
                    if g.has_bias:
                        total += bias[channel]
                if g.has_residual:
                    total += residual[np.uint64(plane * pixels + pixel)]
                if g.relu and total < ZERO:  # not so for NaN
                    total = ZERO
                y[np.uint64(plane * pixels + pixel)] = total
                pixel += across
            plane += down

    return run
