"""Rung 1 of matmul for CUDA: a thread for each element of the result, all from global memory."""

from kernels.cuda.device import cuda, kernel, tile
from kernels.ladder.matmul_cuda.arguments import prepare

#: Threads of a block: eight warps.
THREADS = tile(256, 4)


def matmul(a, b):
    """Multiply as the formula says: a thread computes one element, and neighbours have elements below each other.

    Why it is slow: the 32 threads of a warp read together. What they ask for comes in sectors of 32 bytes, and here
    they ask for one column of ``a``, whose elements lie a row apart: 32 sectors, 1 KB, for 128 bytes that are used.
    The same holds for the column of y that they write. (Of b all want the same element, which is fetched once.)

    Counted: 16384 requests read 270336 sectors of global memory, 16.5 bytes per operation; 31 registers.
    Parameters: see `kernels.ladder.matmul_cuda`.
    """
    y, a, b = prepare(a, b)
    if y.size:
        matmul_kernel.run(-(-y.size // THREADS), THREADS, y.nd, a.nd, b.nd)
    return y


@kernel(lambda T: (T[:, ::1],) * 3, threads=THREADS)
def matmul_kernel(y, a, b):
    M, N = y.shape
    i = cuda.grid(1)
    if i < M * N:
        m, n = i % M, i // M
        total = y.dtype.type(0)
        for k in range(a.shape[1]):
            total += a[m, k] * b[k, n]
        y[m, n] = total
