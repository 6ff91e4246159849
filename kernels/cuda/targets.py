"""Whether targets and probabilities on the device are what a loss takes, before it touches memory by them.

``kernels.checks`` looks at values on the host. Of arrays on the device each block looks at a part and leaves one word,
whether something is wrong there; the words are all that is copied. If one is set, the arrays are copied too, and the
check for the host says what is wrong, in its own words.
"""

import numpy as np
from numba.types import int32, int64

from kernels import checks
from kernels.checks.arguments import is_on_device
from kernels.cuda.array import empty, to_host
from kernels.cuda.device import cuda, kernel
from kernels.cuda.reduction import SUM_THREADS, parts_of


def probabilities(p, target):
    """Return ``p, target``, checked wherever they are: every value of both lies in [0, 1] or is NaN."""
    p, target = checks.probabilities(p, target)
    there = [a for a in (p, target) if is_on_device(a) and a.size]
    if there:
        parts = parts_of(p.size)
        wrong = empty((len(there) * parts,), np.int32)
        for number, a in enumerate(there):
            _outside_kernel.run(parts, SUM_THREADS, wrong.raw, number * parts, a.raw, a.size)
        if to_host(wrong).any():
            checks.probabilities(to_host(p), to_host(target))
    return p, target


def cross_entropy(x, target, weight, ignore_index, label_smoothing):
    """Return the arguments as `checks.cross_entropy` does; every target, wherever it is, is a class or ignored."""
    arguments = checks.cross_entropy(x, target, weight, ignore_index, label_smoothing)
    if is_on_device(target) and target.size:
        parts = parts_of(target.size)
        wrong = empty((parts,), np.int32)
        _no_class_kernel.run(
            parts, SUM_THREADS, wrong.raw, target.raw, x.shape[1], arguments[3], target.size, dtype=arguments[0].dtype
        )
        if to_host(wrong).any():
            checks.cross_entropy(x, to_host(target), weight, ignore_index, label_smoothing)
    return arguments


@kernel(lambda T: (int32[::1], int64, T[::1], int64))
def _outside_kernel(wrong, start, a, count):
    found = 0
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        if a[i] < 0 or a[i] > 1:  # not so for NaN
            found = 1
    found = cuda.syncthreads_or(found)
    if cuda.threadIdx.x == 0:
        wrong[start + cuda.blockIdx.x] = found


@kernel(lambda T: (int32[::1], int64[::1], int64, int64, int64))
def _no_class_kernel(wrong, target, classes, ignored, count):
    found = 0
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        if (target[i] < 0 or target[i] >= classes) and target[i] != ignored:
            found = 1
    found = cuda.syncthreads_or(found)
    if cuda.threadIdx.x == 0:
        wrong[cuda.blockIdx.x] = found
