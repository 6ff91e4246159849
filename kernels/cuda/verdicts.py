"""Whether the values of arrays on the device are what an operator takes: a small kernel looks, the host reads a word.

``kernels.checks`` looks at the values of arrays on the host. Those on the device stay there: one block goes through
them (boxes are few) and leaves its verdict in a few numbers, which are all that is copied, before the operator's own
kernels start. If something is wrong the array is copied too, and the check for the host says what, in its own words.

For that word the host waits until all that was started has run. It has to: what is wrong shall be said before the
operator starts, and the sizes of RoIs say how much memory their tables need. A mark on arrays that were looked at once
would spare the second look, in backward, but any kernel may write to their memory without knowing of it. Who has boxes
on the host, as our detectors do, gives them as they are: they are checked there, and copied without waiting.
"""

import math

import numpy as np
from numba.types import int32, int64

from kernels.checks.arguments import is_on_device
from kernels.cuda.array import empty, to_host
from kernels.cuda.device import cuda, kernel, rounded_product, tile, typed_kernel

THREADS = tile(256, 4)
#: The most samples that are told apart: more than any map has cells.
_MANY = 2**30


def finite(check, *arrays, limits=None):
    """Let ``check`` raise if an array on the device has a number that is NaN or beyond a limit.

    Parameters
    ----------
    check : callable
        Takes the arrays, copied to the host, and raises ValueError for such numbers.
    *arrays : ndarray or DeviceArray
        Of one floating type. Those of the host have been looked at.
    limits : sequence of float, optional
        The largest magnitude in each array; of the type if not given. Infinity refuses NaN alone.
    """
    limits = limits or [np.finfo(a.dtype).max for a in arrays]
    there = [(a, limit) for a, limit in zip(arrays, limits, strict=True) if is_on_device(a) and a.size]
    if not there:
        return
    verdict = empty((1,), np.int32)
    for number, (a, limit) in enumerate(there):
        _beyond_kernel.run(1, THREADS, verdict.raw, a.raw, a.size, a.dtype.type(limit), number)
    if to_host(verdict)[0]:
        check(*map(to_host, arrays))


def rois(check, array, pictures, *, scale=0.0, bins=(1, 1), reversible=True, also=None):
    """Look at RoIs on the device, and let ``check`` raise if something is wrong; return how large they are.

    Parameters
    ----------
    check : callable
        Takes the RoIs, copied to the host, and raises ValueError if something is wrong with them.
    array : DeviceArray, shape (K, 5)
        Batch index and corners.
    pictures : int
        How many pictures there are.
    scale : float
        What corners are multiplied by, which must leave them finite.
    bins : (int, int)
        Bins along the vertical and the horizontal axis.
    reversible : bool
        Whether boxes may be reversed.
    also : callable, optional
        Takes the verdict, an array on the device, to start another kernel that sets its first number if something is
        wrong with other arrays; then called without arguments to raise.

    Returns
    -------
    (int, int)
        Cells of the largest bin along the vertical and the horizontal axis, and one.
    """
    if not len(array):
        return 1, 1
    verdict = empty((3,), np.int32)
    _rois_kernel.run(
        1, THREADS, verdict.raw, array.raw, len(array), pictures, array.dtype.type(scale), *bins, int(not reversible)
    )
    if also is not None:
        also(verdict)
    wrong, *sizes = to_host(verdict).tolist()
    if wrong:
        check(to_host(array))
    return tuple(sizes)


@kernel(lambda T: (int32[::1], T[::1], int64, T, int64), threads=THREADS)
def _beyond_kernel(verdict, a, count, limit, number):
    if number == 0 and cuda.threadIdx.x == 0:
        verdict[0] = 0
    cuda.syncthreads()
    for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
        if not (abs(a[i]) <= limit):  # so for NaN
            cuda.atomic.max(verdict, 0, int32(1))


@typed_kernel(lambda T: (int32[::1], T[::1], int64, int64, T, int64, int64, int64), threads=THREADS)
def _rois_kernel(T):
    times = rounded_product(T)

    def rois_kernel(verdict, rois, count, pictures, scale, down, across, refuse_reversed):
        if cuda.threadIdx.x == 0:
            verdict[0], verdict[1], verdict[2] = 0, 0, 0
        cuda.syncthreads()
        for k in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            index = rois[5 * k]
            if not (index >= 0 and index < pictures and index == math.floor(index)):
                cuda.atomic.max(verdict, 0, int32(1))
            for axis in range(2):
                low, high = rois[5 * k + 2 - axis], rois[5 * k + 4 - axis]
                size = times(high, scale) - times(low, scale)
                # a corner that is not finite has no finite product, not even with 0
                if size - size != 0 or (refuse_reversed and high < low):
                    cuda.atomic.max(verdict, 0, int32(1))
                    continue
                cells = abs(size) / T(across if axis else down)
                cuda.atomic.max(verdict, 1 + axis, int32(_MANY if cells >= _MANY else math.ceil(cells) + 1))

    return rois_kernel
