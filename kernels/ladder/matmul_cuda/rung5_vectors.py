"""Rung 5 of matmul for CUDA: sixteen bytes with each instruction."""

from numba.types import int64

from kernels.cuda.device import SIMULATED, cuda, typed_kernel
from kernels.cuda.gemm import DEPTH, inlined
from kernels.ladder.matmul_cuda import rung4_registers
from kernels.ladder.matmul_cuda.arguments import prepare
from kernels.ladder.matmul_cuda.rung4_registers import ACROSS, OWN, THREADS, TILE
from kernels.ladder.vectors_cuda import BYTES, elements, load, store, vector_type, vectors


def matmul(a, b):
    """Multiply in the tiles of rung 4, moving four neighbours at once (two of float64).

    Changes: a thread's four rows and columns are neighbours, so that it reads them from shared memory with one
    instruction each; a lies there transposed for that. Global memory is read and written 16 bytes at a time as well
    (see ``vectors_cuda``). A row of a matrix then has to begin at a multiple of 16 bytes: rows whose length is no
    multiple of a vector's are left to rung 4.

    Why: the same bytes move, but a quarter as many instructions ask for them. Rung 4 issues 8 reads of shared memory
    for 16 multiply-adds, this one 2, and the places of those that are saved go to multiply-adds.

    To transpose, a thread writes four elements of a row below each other. Rows of shared memory are one vector longer
    than the tile: otherwise several threads of a warp would write to the same bank and wait for each other.

    Counted: 64 requests read 1024 sectors of global memory, 0.0625 bytes per operation; 1024 requests read shared
    memory in 4096 passes; 48 registers. Parameters: see `kernels.ladder.matmul_cuda`.
    """
    y, a, b = prepare(a, b)
    count = BYTES // a.itemsize
    if a.shape[1] % count or b.shape[1] % count:
        return rung4_registers.matmul(a, b)
    if y.size:
        blocks = -(-y.shape[0] // TILE) * -(-y.shape[1] // TILE)
        sizes = a.shape[0], b.shape[1] // count, a.shape[1] // count
        matmul_kernel.run(blocks, THREADS, y.raw, vectors(a), vectors(b), *sizes)
    return y


@inlined
def add_products(total, mine, others, left, right, row, col, count, pitch):
    """Add what one filling of shared memory gives to a thread's sums; ``count`` elements are a vector."""
    for k in range(DEPTH):
        at = k * (pitch // count)
        for c in range(OWN // count):
            load(left, at + c * ACROSS + row, mine, c * count)
            load(right, at + c * ACROSS + col, others, c * count)
        for i in range(OWN):
            for j in range(OWN):
                total[i * OWN + j] += mine[i] * others[j]


@typed_kernel(lambda T: (T[::1], *(vector_type(T),) * 2, int64, int64, int64), threads=THREADS)
def matmul_kernel(T):
    VECTOR, ZERO = elements(T), T(0)
    PITCH = TILE + VECTOR  # elements between two rows of shared memory
    MEMORY, SUMS = DEPTH * PITCH, OWN * OWN
    DEEP, WIDE = DEPTH // VECTOR, TILE // VECTOR  # vectors of a tile's rows
    LOADS = -(-TILE * DEEP // THREADS)  # vectors that a thread copies of either matrix

    def run(y, a, b, M, N, K):  # N and K count vectors
        if SIMULATED:
            left = cuda.shared.array(MEMORY, T)
            right = cuda.shared.array(MEMORY, T)
        else:
            left = cuda.shared.array(MEMORY, T, alignment=BYTES)
            right = cuda.shared.array(MEMORY, T, alignment=BYTES)
        total = cuda.local.array(SUMS, T)
        mine = cuda.local.array(OWN, T)
        others = cuda.local.array(OWN, T)
        values = cuda.local.array(VECTOR, T)
        for i in range(SUMS):
            total[i] = ZERO
        tiles = (N + WIDE - 1) // WIDE
        first_m, first_n = cuda.blockIdx.x // tiles * TILE, cuda.blockIdx.x % tiles * WIDE
        thread = cuda.threadIdx.x
        for first in range(0, K, DEEP):
            for i in range(LOADS):
                at = thread + i * THREADS
                if at < TILE * DEEP:
                    for j in range(VECTOR):
                        values[j] = ZERO
                    row, k = at // DEEP, at % DEEP
                    if first_m + row < M and first + k < K:
                        load(a, (first_m + row) * K + first + k, values, 0)
                    for j in range(VECTOR):
                        left[(k * VECTOR + j) * PITCH + row] = values[j]
                    for j in range(VECTOR):
                        values[j] = ZERO
                    k, col = at // WIDE, at % WIDE
                    if first * VECTOR + k < K * VECTOR and first_n + col < N:
                        load(b, (first * VECTOR + k) * N + first_n + col, values, 0)
                    store(right, k * (PITCH // VECTOR) + col, values, 0)
            cuda.syncthreads()
            add_products(total, mine, others, left, right, thread // ACROSS, thread % ACROSS, VECTOR, PITCH)
            cuda.syncthreads()
        for i in range(OWN):
            for c in range(OWN // VECTOR):
                m = first_m + (i // VECTOR * ACROSS + thread // ACROSS) * VECTOR + i % VECTOR
                n = first_n + c * ACROSS + thread % ACROSS
                if m < M and n < N:
                    store(y, m * N + n, total, i * OWN + c * VECTOR)

    return run
