"""Rung 2 of conv2d for CUDA: neighbouring threads have neighbouring pixels."""

from kernels.cuda.device import cuda, kernel
from kernels.ladder.conv2d_cuda.arguments import GEOMETRY, place_of, prepare
from kernels.ladder.conv2d_cuda.rung1_global import THREADS


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    """Convolve as before, with neighbouring threads along the rows of an output plane.

    Changes: one line, ``o, pixel = i // pixels, i % pixels``: which thread has which output.

    Why: a warp now wants the same weight, one sector, and 32 pixels of x that lie side by side: four sectors, and a few
    more where it reaches over the end of a row, or where the kernel's column shifts them off the sectors' edges. It
    writes four sectors. This is called coalesced.

    Counted: 18560 requests read 40064 sectors of global memory, 2.17 bytes per operation; 40 registers. Parameters:
    see `kernels.ladder.conv2d_cuda`.
    """
    y, x, weight, bias, g = prepare(x, weight, bias, stride, padding)
    if y.size:
        conv2d_kernel.run(-(-y.size // THREADS), THREADS, y.nd, x.nd, weight.nd, bias.raw, g)
    return y


@kernel(lambda T: (*(T[:, :, :, ::1],) * 3, T[::1], GEOMETRY), threads=THREADS)
def conv2d_kernel(y, x, weight, bias, g):
    i, pixels = cuda.grid(1), g.N * g.oH * g.oW
    if i < y.size:
        o, pixel = i // pixels, i % pixels
        n, oy, ox = place_of(pixel, g)
        total = bias[o]
        for c in range(g.C):
            for ky in range(g.kH):
                for kx in range(g.kW):
                    iy, ix = oy * g.sH - g.pH + ky, ox * g.sW - g.pW + kx
                    if iy >= 0 and iy < g.H and ix >= 0 and ix < g.W:
                        total += weight[o, c, ky, kx] * x[n, c, iy, ix]
        y[n, o, oy, ox] = total
