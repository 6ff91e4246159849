"""Rung 3 of matmul for CUDA: a block of threads fetches what it needs once, into shared memory."""

from kernels.cuda.device import cuda, tile, typed_kernel
from kernels.ladder.matmul_cuda.arguments import prepare

#: Edge of a tile of the result; a block has a thread for each element of it.
TILE = tile(16, 4)


def matmul(a, b):
    """Multiply in tiles: the threads of a block compute 16 x 16 elements and share what they fetch.

    Changes: a block goes along k, 16 products at a time. Each of its 256 threads copies one element of a and one of b
    into shared memory, which is as fast as a cache and belongs to the block; a barrier; then each adds 16 products
    from there; another barrier, before the next elements take their place.

    Why: an element that was fetched serves 16 threads, so global memory is read a tenth as often. Elements outside of
    the matrices are put down as zeros, so that the innermost loop need not ask.

    Counted: 1024 requests read 4096 sectors of global memory, 0.25 bytes per operation; 16384 requests read shared
    memory in 16384 passes; 32 registers. Parameters: see `kernels.ladder.matmul_cuda`.
    """
    y, a, b = prepare(a, b)
    if y.size:
        blocks = -(-y.shape[0] // TILE) * -(-y.shape[1] // TILE)
        matmul_kernel.run(blocks, (TILE, TILE), y.nd, a.nd, b.nd)
    return y


@typed_kernel(lambda T: (T[:, ::1],) * 3, threads=TILE * TILE)
def matmul_kernel(T):
    ZERO = T(0)

    def run(y, a, b):
        left = cuda.shared.array((TILE, TILE), T)
        right = cuda.shared.array((TILE, TILE), T)
        (M, K), N = a.shape, b.shape[1]
        tiles = (N + TILE - 1) // TILE
        row, col = cuda.threadIdx.y, cuda.threadIdx.x
        m, n = cuda.blockIdx.x // tiles * TILE + row, cuda.blockIdx.x % tiles * TILE + col
        total = ZERO
        for first in range(0, K, TILE):
            left[row, col] = a[m, first + col] if m < M and first + col < K else ZERO
            right[row, col] = b[first + row, n] if first + row < K and n < N else ZERO
            cuda.syncthreads()
            for k in range(TILE):
                total += left[row, k] * right[k, col]
            cuda.syncthreads()
        if m < M and n < N:
            y[m, n] = total

    return run
