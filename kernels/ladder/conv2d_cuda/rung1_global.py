"""Rung 1 of conv2d for CUDA: a thread for each output, all from global memory."""

from kernels.cuda.device import cuda, kernel, tile
from kernels.ladder.conv2d_cuda.arguments import GEOMETRY, place_of, prepare

#: Threads of a block: eight warps.
THREADS = tile(256, 4)


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    """Convolve as the formula says: a thread computes one output, and neighbours have the channels of one pixel.

    Why it is slow: the 32 threads of a warp read together, and what they ask for comes in sectors of 32 bytes. Here
    each asks for a weight of its own output channel. These lie C * kH * kW elements apart: 32 sectors, 1 KB, for 128
    bytes that are used. The outputs that they write lie a plane apart. (Of x all want the same pixel.)

    Counted: 14848 requests read 243392 sectors of global memory, 13.2 bytes per operation; 40 registers.
    Parameters: see `kernels.ladder.conv2d_cuda`.
    """
    y, x, weight, bias, g = prepare(x, weight, bias, stride, padding)
    if y.size:
        conv2d_kernel.run(-(-y.size // THREADS), THREADS, y.nd, x.nd, weight.nd, bias.raw, g)
    return y


@kernel(lambda T: (*(T[:, :, :, ::1],) * 3, T[::1], GEOMETRY), threads=THREADS)
def conv2d_kernel(y, x, weight, bias, g):
    i = cuda.grid(1)
    if i < y.size:
        o, pixel = i % g.O, i // g.O
        n, oy, ox = place_of(pixel, g)
        total = bias[o]
        for c in range(g.C):
            for ky in range(g.kH):
                for kx in range(g.kW):
                    iy, ix = oy * g.sH - g.pH + ky, ox * g.sW - g.pW + kx
                    if iy >= 0 and iy < g.H and ix >= 0 and ix < g.W:
                        total += weight[o, c, ky, kx] * x[n, c, iy, ix]
        y[n, o, oy, ox] = total
