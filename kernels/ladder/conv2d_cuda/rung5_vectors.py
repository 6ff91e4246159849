"""Rung 5 of conv2d for CUDA: weights sixteen bytes at a time, in the order in which tiles need them."""

from numba.types import int64

from kernels.cuda.device import SIMULATED, cuda, typed_kernel
from kernels.cuda.gemm import DEPTH, inlined
from kernels.ladder.conv2d_cuda import rung4_registers
from kernels.ladder.conv2d_cuda.arguments import GEOMETRY, pixel_under, place_of, prepare
from kernels.ladder.matmul_cuda.rung4_registers import ACROSS, LOADS, OWN, THREADS, TILE
from kernels.ladder.vectors_cuda import BYTES, elements, load, store, vector_type, vectors


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    """Convolve in the tiles of rung 4, moving four weights at once (two of float64).

    Changes: another kernel first transposes the weights, to (kH, kW, C, O): those of neighbouring output channels lie
    side by side, and a step of the sum is one cell of the kernel with eight input channels. Then 16 bytes of them move
    with one instruction, from global to shared memory (see ``vectors_cuda``) and from there to a thread, whose four
    output channels are now neighbours. Pixels cannot: each column of the kernel shifts them by one, off the multiples
    of 16 bytes. Numbers of output channels that are no multiple of a vector's are left to rung 4.

    Why: the same products need fewer instructions. Rung 4 issues 8 reads of shared memory for 16 multiply-adds, this
    one 5. And all that a step fetches lies under the same cell: finding it takes four divisions a step, where rung 4
    takes them for each pixel. Numbers of input channels that are no multiple of eight pay for zeros.

    Counted: 308 requests read 1184 sectors of global memory, 0.0642 bytes per operation; 2880 requests read shared
    memory in 4608 passes; 76 registers. Before that, 144 requests read 4608 sectors. Parameters: see
    `kernels.ladder.conv2d_cuda`.
    """
    y, x, weight, bias, g = prepare(x, weight, bias, stride, padding)
    count = BYTES // x.itemsize
    if g.O % count:
        return rung4_registers.conv2d_forward(x, weight, bias, stride, padding)
    if y.size:
        weight = weight.transpose(2, 3, 1, 0)
        blocks = -(-g.O // TILE) * -(-g.N * g.oH * g.oW // TILE)
        conv2d_kernel.run(blocks, THREADS, y.nd, x.nd, vectors(weight), bias.raw, g.O // count, g)
    return y


@inlined
def add_products(total, mine, others, left, right, row, col, count):
    """Add what one filling of shared memory gives to a thread's sums; ``count`` weights are a vector."""
    for k in range(DEPTH):
        for c in range(OWN // count):
            load(left, k * (TILE // count) + c * ACROSS + row, mine, c * count)
        for j in range(OWN):
            others[j] = right[k, col + j * ACROSS]
        for i in range(OWN):
            for j in range(OWN):
                total[i, j] += mine[i] * others[j]


@typed_kernel(lambda T: (*(T[:, :, :, ::1],) * 2, vector_type(T), T[::1], int64, GEOMETRY), threads=THREADS)
def conv2d_kernel(T):
    VECTOR, ZERO = elements(T), T(0)
    MEMORY = DEPTH * TILE
    WIDE = TILE // VECTOR  # vectors of a row of shared memory
    VECTOR_LOADS = -(-DEPTH * WIDE // THREADS)

    def run(y, x, weight, bias, width, g):  # width: O, in vectors
        if SIMULATED:
            left = cuda.shared.array(MEMORY, T)
        else:
            left = cuda.shared.array(MEMORY, T, alignment=BYTES)
        right = cuda.shared.array((DEPTH, TILE), T)
        total = cuda.local.array((OWN, OWN), T)
        mine = cuda.local.array(OWN, T)
        others = cuda.local.array(OWN, T)
        values = cuda.local.array(VECTOR, T)
        for i in range(OWN):
            for j in range(OWN):
                total[i, j] = ZERO
        taps, chunks = g.kH * g.kW, (g.C + DEPTH - 1) // DEPTH
        tiles = (g.N * g.oH * g.oW + TILE - 1) // TILE
        row_tile, first_pixel = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles * TILE
        thread = cuda.threadIdx.x
        n, oy, ox = place_of(first_pixel + thread % TILE, g)
        for step in range(chunks * taps):
            chunk, tap = step // taps, step % taps
            for i in range(VECTOR_LOADS):
                at = thread + i * THREADS
                if at < DEPTH * WIDE:
                    for j in range(VECTOR):
                        values[j] = ZERO
                    c, o = chunk * DEPTH + at // WIDE, row_tile * WIDE + at % WIDE
                    if c < g.C and o < width:
                        load(weight, (tap * g.C + c) * width + o, values, 0)
                    store(left, at, values, 0)
            iy, ix = oy * g.sH - g.pH + tap // g.kW, ox * g.sW - g.pW + tap % g.kW
            for i in range(LOADS):
                k = (thread + i * THREADS) // TILE
                right[k, thread % TILE] = pixel_under(x, n, chunk * DEPTH + k, iy, ix, g)
            cuda.syncthreads()
            add_products(total, mine, others, left, right, thread // ACROSS, thread % ACROSS, VECTOR)
            cuda.syncthreads()
        for j in range(OWN):
            n, oy, ox = place_of(first_pixel + thread % ACROSS + j * ACROSS, g)
            for i in range(OWN):
                o = row_tile * TILE + (i // VECTOR * ACROSS + thread // ACROSS) * VECTOR + i % VECTOR
                if o < g.O and n < g.N:
                    y[n, o, oy, ox] = total[i, j] + bias[o]

    return run
