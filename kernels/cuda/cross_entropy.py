"""Cross entropy over classes: a thread takes one sample or pixel, and goes through its classes.

The formulas are in ``kernels/naive/cross_entropy.py``. For each class the scores of neighbouring pixels lie side by
side, so threads that are neighbours read and write side by side. A reduced loss is summed where it is computed: see
``reduction``. What a mean divides by, the weights of all true classes, stays on the device.
"""

import math

import numpy as np
from numba.types import boolean, float64, int64

from kernels import checks
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, device_function, kernel, typed_kernel
from kernels.cuda.reduction import SUM_THREADS, block_sum, parts_of, sum_of_parts
from kernels.cuda.targets import cross_entropy


def cross_entropy_forward(x, target, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Return the cross entropy of scores over classes.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C) or (N, C, ...)
        Scores of C classes, float32 or float64.
    target : ndarray or DeviceArray of int, shape (N,) or (N, ...)
        True class of each sample or pixel: 0 to C - 1, or ``ignore_index``.
    weight : ndarray or DeviceArray, shape (C,), optional
        Weight of each class.
    ignore_index : int
        Target that counts for nothing.
    label_smoothing : float
        Share of the target that is spread over all classes, 0 to 1.
    reduction : {"none", "mean", "sum"}
        One loss per sample or pixel, or their weighted mean, or their sum. A mean over nothing is 0.

    Returns
    -------
    DeviceArray
        Of target's shape with "none", otherwise with no axes; of x's type.

    Raises
    ------
    TypeError
        If an array has a wrong type.
    ValueError
        If shapes do not fit each other, or a target is no class.

    Notes
    -----
    Follows ``torch.nn.functional.cross_entropy``, except that PyTorch's mean over nothing is NaN. Label smoothing:
    Szegedy et al., arXiv:1512.00567.
    """
    shape = np.shape(target)
    x, target, weight, ignore_index, smoothing = cross_entropy(x, target, weight, ignore_index, label_smoothing)
    reduction = checks.reduction(reduction)
    x, target, weight = on_device(x, target, weight)
    inputs = _inputs(x, target, weight, ignore_index, smoothing)
    if reduction == "none":
        y = empty(shape, x.dtype)
        _cross_entropy_kernel.over(target.size, y.raw, *inputs)
        return y
    y, parts = empty((), x.dtype), parts_of(target.size)
    partials = empty((2 * parts,), np.float64)
    _cross_entropy_sum_kernel.run(parts, SUM_THREADS, partials.raw, *inputs, dtype=x.dtype)
    _finish_kernel.run(1, SUM_THREADS, y.raw, partials.raw, parts, reduction == "mean")
    return y


def cross_entropy_backward(dy, x, target, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Return the gradient of `cross_entropy_forward` with respect to the scores.

    Parameters
    ----------
    dy : ndarray or DeviceArray or float
        Gradient of the loss, of its shape.
    x, target, weight, ignore_index, label_smoothing, reduction
        As given to `cross_entropy_forward`.

    Returns
    -------
    DeviceArray
        Of x's shape and type; 0 where the target is ignored.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_forward`, and if dy has not the shape of the loss.
    """
    x_shape, target_shape = np.shape(x), np.shape(target)
    x, target, weight, ignore_index, smoothing = cross_entropy(x, target, weight, ignore_index, label_smoothing)
    dy = checks.loss_gradient(dy, x, reduction, target_shape)
    dy, x, target, weight = on_device(dy, x, target, weight)
    if reduction == "mean":  # dy for each pixel: divided by the weights
        parts, of_mean, dy = parts_of(target.size), dy, empty((), x.dtype)
        partials = empty((parts,), np.float64)
        weights = (x if weight is None else weight).raw, weight is not None
        _weight_sum_kernel.run(
            parts, SUM_THREADS, partials.raw, target.raw, *weights, ignore_index, target.size, dtype=x.dtype
        )
        _share_kernel.run(1, SUM_THREADS, dy.raw, of_mean.raw, partials.raw, parts)
    dx = empty(x_shape, x.dtype)
    inputs = _inputs(x, target, weight, ignore_index, smoothing)
    _cross_entropy_gradient_kernel.over(target.size, dx.raw, dy.raw, reduction == "none", *inputs)
    return dx


def _inputs(x, target, weight, ignore_index, smoothing):
    """Return what the kernels take after their outputs; x stands for weights that there are not."""
    weights = (x if weight is None else weight).raw, weight is not None
    return x.raw, target.raw, *weights, ignore_index, x.dtype.type(smoothing), *x.shape[1:], target.size


def _arguments(T):
    """Return the types of `_inputs`."""
    return T[::1], int64[::1], T[::1], boolean, int64, T, int64, int64, int64


# ---- kernels: x is (N, classes, pixels), target has count = N * pixels elements --------------------------------------


def _exponentials(T):
    @device_function
    def exponentials(x, start, stop, step, true):
        """Return the largest score, the sum over classes of ``exp(score - largest)``, and the score at ``true``."""
        largest = x[start]
        chosen = largest  # taken as it comes by: neighbours differ in their classes, and would read far apart
        for k in range(start + step, stop, step):
            if x[k] > largest:
                largest = x[k]
        total = T(0)
        for k in range(start, stop, step):
            score = x[k]
            total += T(math.exp(score - largest))
            if k == true:
                chosen = score
        return largest, total, chosen

    return exponentials


def _loss(T):
    exponentials = _exponentials(T)

    @device_function
    def loss(x, t, weight, weighted, smoothing, start, classes, pixels):
        """Return the loss of one pixel, whose true class is t."""
        largest, total, score = exponentials(x, start, start + classes * pixels, pixels, start + t * pixels)
        log_total = T(math.log(total))
        true_weight = weight[t] if weighted else T(1)
        # minus log_p: both differences are exact where a difference from largest + log_total would be rounded
        result = (T(1) - smoothing) * true_weight * ((largest - score) + log_total)
        if smoothing > T(0):
            spread = smoothing / T(classes)
            for k in range(classes):
                own_weight = weight[k] if weighted else T(1)
                result += spread * own_weight * ((largest - x[start + k * pixels]) + log_total)
        return result

    return loss


@typed_kernel(lambda T: (T[::1], *_arguments(T)))
def _cross_entropy_kernel(T):
    loss = _loss(T)

    def cross_entropy_kernel(y, x, target, weight, weighted, ignored, smoothing, classes, pixels, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            t = target[i]
            if t == ignored:
                y[i] = T(0)
            else:
                start = i // pixels * classes * pixels + i % pixels
                y[i] = loss(x, t, weight, weighted, smoothing, start, classes, pixels)

    return cross_entropy_kernel


@typed_kernel(lambda T: (float64[::1], *_arguments(T)))
def _cross_entropy_sum_kernel(T):
    loss = _loss(T)

    def cross_entropy_sum_kernel(partials, x, target, weight, weighted, ignored, smoothing, classes, pixels, count):
        total, total_weight = float64(0), float64(0)
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            t = target[i]
            if t != ignored:
                start = i // pixels * classes * pixels + i % pixels
                total += float64(loss(x, t, weight, weighted, smoothing, start, classes, pixels))
                total_weight += float64(weight[t] if weighted else T(1))
        total, total_weight = block_sum(total), block_sum(total_weight)
        if cuda.threadIdx.x == 0:
            partials[cuda.blockIdx.x] = total
            partials[cuda.gridDim.x + cuda.blockIdx.x] = total_weight

    return cross_entropy_sum_kernel


@kernel(lambda T: (T[::1], float64[::1], int64, boolean))
def _finish_kernel(y, partials, parts, mean):
    total, total_weight = sum_of_parts(partials, 0, parts), sum_of_parts(partials, parts, parts)
    if cuda.threadIdx.x == 0:
        if not mean:
            y[0] = total
        elif total_weight == 0:  # a mean over nothing
            y[0] = 0
        else:
            y[0] = total * (1 / total_weight)


@kernel(lambda T: (float64[::1], int64[::1], T[::1], boolean, int64, int64))
def _weight_sum_kernel(partials, target, weight, weighted, ignored, count):
    total = float64(0)
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        t = target[i]
        if t != ignored:
            total += float64(weight[t]) if weighted else float64(1)
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        partials[cuda.blockIdx.x] = total


@kernel(lambda T: (T[::1], T[::1], float64[::1], int64))
def _share_kernel(dy, of_mean, partials, parts):
    total_weight = sum_of_parts(partials, 0, parts)
    if cuda.threadIdx.x == 0:
        dy[0] = of_mean[0] * (0 if total_weight == 0 else 1 / total_weight)


@typed_kernel(lambda T: (T[::1], T[::1], boolean, *_arguments(T)))
def _cross_entropy_gradient_kernel(T):
    exponentials = _exponentials(T)

    def cross_entropy_gradient_kernel(
        dx, dy, each, x, target, weight, weighted, ignored, smoothing, classes, pixels, count
    ):
        spread = smoothing / T(classes)
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            t = target[i]
            start = i // pixels * classes * pixels + i % pixels
            stop = start + classes * pixels
            if t == ignored:
                for k in range(start, stop, pixels):
                    dx[k] = T(0)
            else:
                true_share = (T(1) - smoothing) * (weight[t] if weighted else T(1))
                sum_q = true_share
                if smoothing > T(0):
                    for k in range(classes):
                        sum_q += spread * (weight[k] if weighted else T(1))
                largest, total, _ = exponentials(x, start, stop, pixels, start)
                upstream = dy[i] if each else dy[0]
                for k in range(classes):
                    q = spread * (weight[k] if weighted else T(1))
                    if k == t:
                        q += true_share
                    at = start + k * pixels
                    dx[at] = upstream * (T(math.exp(x[at] - largest)) / total * sum_q - q)

    return cross_entropy_gradient_kernel
