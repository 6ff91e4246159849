"""Rung 4 of conv2d for CUDA: a thread computes 4 channels of 4 pixels, with its sums in registers."""

from kernels.cuda.device import cuda, typed_kernel
from kernels.cuda.gemm import DEPTH
from kernels.ladder.conv2d_cuda.arguments import GEOMETRY, pixel_under, place_of, prepare
from kernels.ladder.matmul_cuda.rung4_registers import ACROSS, LOADS, OWN, THREADS, TILE, add_products


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    """Convolve in tiles of 64 channels by 64 pixels, of which each of 256 threads computes 16 outputs.

    Changes: a thread has every 16th channel and every 16th pixel of the tile, four of each. For each of 8 products in
    shared memory it reads its four weights and pixels into registers, and adds their 16 products to 16 sums: the core
    is that of matmul's rung 4. It fetches always under the same output pixel, whose place it computes once.

    Why: rung 3 reads two numbers from shared memory for each product, here eight reads serve 16. And the tile is
    larger: what comes from global memory is used 64 times instead of 16.

    Counted: 416 requests read 1184 sectors of global memory, 0.0642 bytes per operation; 4608 requests read shared
    memory in 4608 passes; 92 registers. Parameters: see `kernels.ladder.conv2d_cuda`.
    """
    y, x, weight, bias, g = prepare(x, weight, bias, stride, padding)
    if y.size:
        blocks = -(-g.O // TILE) * -(-g.N * g.oH * g.oW // TILE)
        rows = weight.reshape(g.O, g.C * g.kH * g.kW)
        conv2d_kernel.run(blocks, THREADS, y.nd, x.nd, rows.nd, bias.raw, g)
    return y


@typed_kernel(lambda T: (*(T[:, :, :, ::1],) * 2, T[:, ::1], T[::1], GEOMETRY), threads=THREADS)
def conv2d_kernel(T):
    ZERO = T(0)

    def run(y, x, weight, bias, g):
        left = cuda.shared.array((TILE, DEPTH), T)
        right = cuda.shared.array((DEPTH, TILE), T)
        total = cuda.local.array((OWN, OWN), T)
        mine = cuda.local.array(OWN, T)
        others = cuda.local.array(OWN, T)
        for i in range(OWN):
            for j in range(OWN):
                total[i, j] = ZERO
        products = g.C * g.kH * g.kW
        tiles = (g.N * g.oH * g.oW + TILE - 1) // TILE
        first_o, first_pixel = cuda.blockIdx.x // tiles * TILE, cuda.blockIdx.x % tiles * TILE
        thread = cuda.threadIdx.x
        n, oy, ox = place_of(first_pixel + thread % TILE, g)
        for first in range(0, products, DEPTH):
            for i in range(LOADS):
                at = thread + i * THREADS
                row, k = at // DEPTH, at % DEPTH
                inside = first_o + row < g.O and first + k < products
                left[row, k] = weight[first_o + row, first + k] if inside else ZERO
                k = first + at // TILE
                c, ky, kx = k // (g.kH * g.kW), k // g.kW % g.kH, k % g.kW
                value = pixel_under(x, n, c, oy * g.sH - g.pH + ky, ox * g.sW - g.pW + kx, g)
                right[at // TILE, thread % TILE] = value
            cuda.syncthreads()
            add_products(total, mine, others, left, right, thread // ACROSS, thread % ACROSS)
            cuda.syncthreads()
        for j in range(OWN):
            n, oy, ox = place_of(first_pixel + thread % ACROSS + j * ACROSS, g)
            for i in range(OWN):
                o = first_o + thread // ACROSS + i * ACROSS
                if o < g.O and n < g.N:
                    y[n, o, oy, ox] = total[i, j] + bias[o]

    return run
