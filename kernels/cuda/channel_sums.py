"""Sums over all pixels of a channel: the gradient of a bias.

A channel's pixels are cut into parts of one size, a block each, so that the GPU is busy where there are few channels.
A thread adds up every 256th value of its part, then the block adds up its threads; another kernel adds up the parts.
All in an order that depends on the sizes alone. Where a channel's values do not lie
together, a thread takes a channel instead, so that neighbours read neighbours.
"""

from math import ceil

from numba.types import int64

from kernels.cuda.array import empty
from kernels.cuda.device import cuda, tile, typed_kernel
from kernels.cuda.gemm import finish
from kernels.cuda.reduction import SUM_THREADS, block_sum

#: Values that make a part, at least, for blocks and for single threads; and parts at most.
_PART, _ROWS_OF_PART, _PARTS = tile(8192, 8), tile(64, 3), tile(128, 3)


def channel_sums(a):
    """Return the sum of each channel.

    Parameters
    ----------
    a : DeviceArray, shape (N, C, pixels)
        What to sum.

    Returns
    -------
    DeviceArray, shape (C,)
    """
    n, channels, plane = a.shape
    sums = empty((channels,), a.dtype)
    if not channels:
        return sums
    parts = ceil(n / _ROWS_OF_PART) if plane == 1 else ceil(n * plane / _PART)
    parts = max(1, min(parts, _PARTS))
    target = sums if parts == 1 else empty((parts, channels), a.dtype)
    if plane == 1:
        _columns_kernel.over(parts * channels, target.raw, a.raw, n, channels, parts)
    else:
        _channels_kernel.run(parts * channels, SUM_THREADS, target.raw, a.raw, n, channels, plane, parts)
    return finish(sums, target, None, 1, channels)


@typed_kernel(lambda T: (T[::1], T[::1], int64, int64, int64))
def _columns_kernel(T):
    def columns_kernel(parts, a, n, channels, splits):
        """A thread sums a part of the rows of one column."""
        rows = (n + splits - 1) // splits
        for i in range(cuda.grid(1), splits * channels, cuda.gridsize(1)):
            first, channel = i // channels * rows, i % channels
            total = T(0)
            for row in range(first, min(first + rows, n)):
                total += a[row * channels + channel]
            parts[i] = total

    return columns_kernel


@typed_kernel(lambda T: (T[::1], T[::1], int64, int64, int64, int64), threads=SUM_THREADS)
def _channels_kernel(T):
    def channels_kernel(parts, a, n, channels, plane, splits):
        """A block sums a part of the pixels of one channel."""
        channel, part = cuda.blockIdx.x % channels, cuda.blockIdx.x // channels
        share = (n * plane + splits - 1) // splits
        first = part * share
        total = T(0)
        for i in range(first + cuda.threadIdx.x, min(first + share, n * plane), SUM_THREADS):
            total += a[(i // plane * channels + channel) * plane + i % plane]
        total = block_sum(total)
        if cuda.threadIdx.x == 0:
            parts[part * channels + channel] = total

    return channels_kernel
