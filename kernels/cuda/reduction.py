"""Sums of many numbers, always in the same order; and what the losses of single elements share.

A sum takes two launches. In the first, each thread of up to `PARTS` blocks adds up numbers at equal distances, and the
threads of a block add up what they have in pairs, pairs of pairs and so on, in shared memory: one partial sum each. In
the second, one block does the same with the partial sums. How many blocks there are follows from the count alone,
not from the GPU, so a sum is the same, bit for bit, wherever it runs. Atomic additions would need one launch only, but
happen in any order. Sums are kept in float64, also of float32: the losses themselves are computed in their own type.
"""

import functools

import numpy as np
from numba.types import boolean, float64, int64

from kernels.cuda.array import empty, on_device
from kernels.cuda.device import Kernel, cuda, device_function, kernel, tile

#: Threads of a block that sums, blocks at most, and how many numbers a thread should have to itself at least.
SUM_THREADS, PARTS, _NUMBERS = tile(256, 4), tile(1024, 3), 8


def parts_of(count):
    """Return how many blocks to sum ``count`` numbers with: at least one."""
    return max(1, min(-(-count // (SUM_THREADS * _NUMBERS)), PARTS))


@device_function
def block_sum(value):
    """Return the sum of ``value`` over the threads of a block; all `SUM_THREADS` of them must call it."""
    sums = cuda.shared.array(SUM_THREADS, float64)
    thread = cuda.threadIdx.x
    sums[thread] = value
    cuda.syncthreads()
    half = SUM_THREADS // 2
    while half > 0:
        if thread < half:
            sums[thread] += sums[thread + half]
        cuda.syncthreads()
        half //= 2
    total = sums[0]
    cuda.syncthreads()  # the next sum may only now overwrite it
    return total


@device_function
def sum_of_parts(partials, start, parts):
    """Return the sum of ``parts`` partial sums from ``start`` on; all threads of a block must call it."""
    total = float64(0)
    for i in range(start + cuda.threadIdx.x, start + parts, SUM_THREADS):
        total += partials[i]
    return block_sum(total)


def finish(y, partials, parts, share):
    """Write the sum of partial sums, times ``share``, to the only element of ``y``."""
    _finish_kernel.run(1, SUM_THREADS, y.raw, partials.raw, parts, float(share))


@kernel(lambda T: (T[::1], float64[::1], int64, float64))
def _finish_kernel(y, partials, parts, share):
    total = sum_of_parts(partials, 0, parts)
    if cuda.threadIdx.x == 0:
        y[0] = total * share


def share_of(how, count):
    """Return what the sum of ``count`` losses is multiplied by: 1, or for a mean one over the count, 0 for none."""
    if how != "mean":
        return 1.0
    return 1 / count if count else 0.0


# ---- losses of single elements ---------------------------------------------------------------------------------------


class ElementwiseLoss:
    """A loss of each element by itself, with its reductions and its gradient.

    The loss is computed where it is summed, so a reduced loss reads its inputs once and writes next to nothing.

    Parameters
    ----------
    name : str
        File and loss: ``"smooth_l1.smooth_l1"``.
    value, slope : callable
        Take a floating type T and return a `device_function` of ``x, t, w, pos, a, b``, numbers of type T: score,
        target, their two weights (1 if there are none) and two constants. They return the loss and its derivative
        with respect to x.
    """

    def __init__(self, name, value, slope):
        arrays = lambda T: (T[::1], T[::1], T[::1], T[::1], boolean, boolean, T, T, int64)  # noqa: E731
        self._none = Kernel(
            functools.cache(lambda T: _none(T, value(T))), lambda T: (T[::1], *arrays(T)), f"{name}_none"
        )
        self._sum = Kernel(
            functools.cache(lambda T: _sum(T, value(T))), lambda T: (float64[::1], *arrays(T)), f"{name}_sum"
        )
        self._gradient = Kernel(
            functools.cache(lambda T: _gradient(T, slope(T))),
            lambda T: (T[::1], T[::1], boolean, T, *arrays(T)),
            f"{name}_gradient",
        )

    def forward(self, how, x, target, weights=(None, None), a=0.0, b=0.0):
        """Return the loss, reduced as ``how`` says. All arrays were checked; the weights have x's shape or are None."""
        x, target, *weights = on_device(x, target, *weights)
        inputs = _inputs(x, target, weights, a, b)
        y = empty(x.shape if how == "none" else (), x.dtype)
        if how == "none":
            self._none.over(x.size, y.raw, *inputs)
            return y
        parts = parts_of(x.size)
        partials = empty((parts,), np.float64)
        self._sum.run(parts, SUM_THREADS, partials.raw, *inputs, dtype=x.dtype)
        finish(y, partials, parts, share_of(how, x.size))
        return y

    def backward(self, dy, how, x, target, weights=(None, None), a=0.0, b=0.0):
        """Return the gradient with respect to x. ``dy`` was checked as well: of the loss's shape."""
        dy, x, target, *weights = on_device(dy, x, target, *weights)
        dx = empty(x.shape, x.dtype)
        share = x.dtype.type(share_of(how, x.size))
        self._gradient.over(x.size, dx.raw, dy.raw, how == "none", share, *_inputs(x, target, weights, a, b))
        return dx


def _inputs(x, target, weights, a, b):
    """Return what the kernels of a loss take after their outputs; x stands for weights that there are not."""
    given = [weight is not None for weight in weights]
    arrays = [(x if weight is None else weight).raw for weight in weights]
    return x.raw, target.raw, *arrays, *given, x.dtype.type(a), x.dtype.type(b), x.size


def _none(T, value):
    def loss_kernel(y, x, target, weight, pos_weight, weighted, pos_weighted, a, b, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            w = weight[i] if weighted else T(1)
            pos = pos_weight[i] if pos_weighted else T(1)
            y[i] = value(x[i], target[i], w, pos, a, b)

    return loss_kernel


def _sum(T, value):
    def sum_kernel(partials, x, target, weight, pos_weight, weighted, pos_weighted, a, b, count):
        total = float64(0)
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            w = weight[i] if weighted else T(1)
            pos = pos_weight[i] if pos_weighted else T(1)
            total += float64(value(x[i], target[i], w, pos, a, b))
        total = block_sum(total)
        if cuda.threadIdx.x == 0:
            partials[cuda.blockIdx.x] = total

    return sum_kernel


def _gradient(T, slope):
    def gradient_kernel(dx, dy, each, share, x, target, weight, pos_weight, weighted, pos_weighted, a, b, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            w = weight[i] if weighted else T(1)
            pos = pos_weight[i] if pos_weighted else T(1)
            upstream = dy[i] if each else dy[0] * share  # a reduced loss has one dy
            dx[i] = upstream * slope(x[i], target[i], w, pos, a, b)

    return gradient_kernel
