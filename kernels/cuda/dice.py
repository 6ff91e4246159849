"""Dice loss: one minus the overlap of the predicted and the true area.

The formulas are in ``kernels/naive/dice.py``. A block sums up overlap and areas of one part of one sample; then a block
for each sample adds its parts up, and at last a block does the losses of the samples. The gradient needs the same sums,
and then a thread takes one element after the other. See ``reduction`` for how sums are taken.
"""

import math

import numpy as np
from numba.types import boolean, float64, int64

from kernels import checks
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, device_function, kernel, tile, typed_kernel
from kernels.cuda.reduction import PARTS, SUM_THREADS, block_sum, parts_of, share_of

#: Blocks at most, each of which goes from sample to sample.
_BLOCKS = tile(65536, 3)


def dice_forward(x, target, smooth=1.0, per_sample=False, reduction="mean"):
    """Return the Dice loss of scores.

    Parameters
    ----------
    x : ndarray or DeviceArray
        Scores before the sigmoid, any shape, float32 or float64.
    target : ndarray or DeviceArray
        Of x's shape and type, from 0 to 1.
    smooth : float
        Added to overlap and areas; 0 or more.
    per_sample : bool
        Whether each sample (first axis) has a loss of its own. Otherwise there is one loss, over all of x.
    reduction : {"none", "mean", "sum"}
        What to make of the samples' losses.

    Returns
    -------
    DeviceArray
        Of shape (N,) with "none" and ``per_sample``, otherwise with no axes; of x's type.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or target not x's.
    ValueError
        If the shapes differ, or smooth is negative.
    """
    x, target = checks.loss_pair(x, target)
    smooth, reduction = checks.number("smooth", smooth, 0), checks.reduction(reduction)
    samples = _number_of_samples(x, per_sample)
    x, target = on_device(x, target)
    each = reduction == "none"
    y = empty((samples,) if each and per_sample else (), x.dtype)
    sums = _sums(x, target, samples, smooth)
    if y.size:
        share = share_of(reduction, samples)
        _dice_kernel.run(1, SUM_THREADS, y.raw, sums.raw, each, share, x.size > 0, samples)
    return y


def dice_backward(dy, x, target, smooth=1.0, per_sample=False, reduction="mean"):
    """Return the gradient of `dice_forward` with respect to the scores.

    Parameters
    ----------
    dy : ndarray or DeviceArray or float
        Gradient of the loss, of its shape.
    x, target, smooth, per_sample, reduction
        As given to `dice_forward`.

    Returns
    -------
    DeviceArray
        Of x's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `dice_forward`, and if dy has not the shape of the loss.
    """
    x, target = checks.loss_pair(x, target)
    smooth = checks.number("smooth", smooth, 0)
    samples = _number_of_samples(x, per_sample)
    dy = checks.loss_gradient(dy, x, reduction, (samples,) if per_sample else ())
    dy, x, target = on_device(dy, x, target)
    dx = empty(x.shape, x.dtype)
    if x.size:
        sums = _sums(x, target, samples, smooth)
        each, share = reduction == "none", x.dtype.type(share_of(reduction, samples))
        _dice_gradient_kernel.over_rows(
            samples, x.size // samples, dx.raw, dy.raw, each, share, sums.raw, x.raw, target.raw, samples,
            x.size // samples,
        )  # fmt: skip
    return dx


def _number_of_samples(x, per_sample):
    """Return how many losses there are before reduction."""
    return x.shape[0] if per_sample and x.ndim else 1


def _sums(x, target, samples, smooth):
    """Return overlap and areas of each sample, in float64."""
    sums = empty((2 * samples,), np.float64)
    if not x.size:
        return sums
    size = x.size // samples
    # few samples are summed in many parts, many samples in few
    parts = max(1, min(parts_of(size), PARTS // samples))
    partials = empty((2 * samples * parts,), np.float64)
    blocks = min(samples * parts, _BLOCKS)
    _parts_kernel.run(blocks, SUM_THREADS, partials.raw, x.raw, target.raw, samples, parts, size, dtype=x.dtype)
    _sums_kernel.run(min(samples, _BLOCKS), SUM_THREADS, sums.raw, partials.raw, smooth, samples, parts, dtype=x.dtype)
    return sums


def _sigmoid(T):
    @device_function
    def sigmoid(x):
        small = T(math.exp(-abs(x)))
        above = T(1) if x >= T(0) else small
        return above / (T(1) + small)

    return sigmoid


@typed_kernel(lambda T: (float64[::1], T[::1], T[::1], int64, int64, int64))
def _parts_kernel(T):
    sigmoid = _sigmoid(T)

    def parts_kernel(partials, x, target, samples, parts, size):
        length = (size + parts - 1) // parts
        for task in range(cuda.blockIdx.x, samples * parts, cuda.gridDim.x):
            start = task // parts * size
            first = task % parts * length
            overlap, areas = float64(0), float64(0)
            for i in range(first + cuda.threadIdx.x, min(first + length, size), SUM_THREADS):
                p, t = sigmoid(x[start + i]), target[start + i]
                overlap += float64(p) * float64(t)
                areas += float64(p) + float64(t)
            overlap, areas = block_sum(overlap), block_sum(areas)
            if cuda.threadIdx.x == 0:
                partials[2 * task], partials[2 * task + 1] = overlap, areas

    return parts_kernel


@kernel(lambda T: (float64[::1], float64[::1], float64, int64, int64))
def _sums_kernel(sums, partials, smooth, samples, parts):
    for n in range(cuda.blockIdx.x, samples, cuda.gridDim.x):
        overlap, areas = float64(0), float64(0)
        for part in range(n * parts + cuda.threadIdx.x, (n + 1) * parts, SUM_THREADS):
            overlap += partials[2 * part]
            areas += partials[2 * part + 1]
        overlap, areas = block_sum(overlap), block_sum(areas)
        if cuda.threadIdx.x == 0:
            sums[2 * n], sums[2 * n + 1] = 2 * overlap + smooth, areas + smooth


@kernel(lambda T: (T[::1], float64[::1], boolean, float64, boolean, int64))
def _dice_kernel(y, sums, each, share, filled, samples):
    total = float64(0)
    for n in range(cuda.threadIdx.x, samples, SUM_THREADS):
        loss = float64(0)  # of a sample without elements
        if filled:
            loss = 1 - sums[2 * n] / sums[2 * n + 1]
        if each:
            y[n] = loss
        else:
            total += loss
    total = block_sum(total)
    if cuda.threadIdx.x == 0 and not each:
        y[0] = total * share


@typed_kernel(lambda T: (T[::1], T[::1], boolean, T, float64[::1], T[::1], T[::1], int64, int64))
def _dice_gradient_kernel(T):
    sigmoid = _sigmoid(T)

    def dice_gradient_kernel(dx, dy, each, share, sums, x, target, samples, size):
        column, first_row = cuda.grid(2)
        across, down = cuda.gridsize(2)
        for n in range(first_row, samples, down):
            overlap, areas = sums[2 * n], sums[2 * n + 1]
            upstream = float64(dy[n] if each else dy[0] * share)
            # -(2 * t * areas - overlap) / areas^2, in two numbers for the whole sample
            at_false, for_true = T(upstream * overlap / (areas * areas)), T(-2 * upstream / areas)
            for i in range(n * size + column, (n + 1) * size, across):
                p = sigmoid(x[i])
                dx[i] = (at_false + for_true * target[i]) * p * (T(1) - p)

    return dice_gradient_kernel
