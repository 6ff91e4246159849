"""Cross entropy of classes, of logits seen as (N, C, P).

One task computes up to 1024 neighbouring pixels of one picture; the loops over classes stand outside those over pixels,
so that neighbouring pixels are computed at once. Sums are kept per task, in float64.
"""

import numpy as np

from kernels import checks
from kernels.cpu.memory import empty
from kernels.cpu.reduction import buffers, factors, reduced, upstream
from kernels.cpu.softmax import largest_and_sum
from kernels.cpu.tasks import run
from kernels.cpu.vector_math import exp, log
from kernels.jit import jit

#: Pixels per task: few enough for their logits to stay in the cache.
PIXELS = 1024


def cross_entropy_forward(x, target, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Return the cross entropy of ``softmax(x)`` and a class per pixel, ``-weight[target] * log(softmax(x)[target])``.

    Parameters
    ----------
    x : ndarray, (N, C) or (N, C, ...), float32 or float64
        Logits.
    target : ndarray of int, (N,) or (N, ...)
        Class of each pixel.
    weight : ndarray, (C,), optional
        Factor of each class.
    ignore_index : int
        Target of pixels that do not count.
    label_smoothing : float
        Share of the target, from 0 to 1, that is spread evenly over all classes.
    reduction : {"none", "mean", "sum"}
        What becomes of the single losses. The mean divides by the sum of the weights of the targets that count.

    Returns
    -------
    ndarray, shape of ``target`` for "none", else ()
        Loss, summed in float64; 0 for ignored pixels and over nothing.

    Raises
    ------
    TypeError
        If ``x`` or ``weight`` is not an array of float32 or float64, or ``target`` not one of whole numbers.
    ValueError
        If the shapes do not fit, a target is no class, or a parameter is out of range.

    Notes
    -----
    As in PyTorch, weights also apply to the part of the loss that smoothing spreads.
    """
    checks.reduction(reduction)
    shape = np.shape(target)
    x, target, weight, ignore_index, smoothing = checks.cross_entropy(x, target, weight, ignore_index, label_smoothing)
    weight = _class_weights(weight, x)
    losses, sums = buffers(shape, reduction, x.dtype, _tasks(x))
    count = 0.0
    if target.size:
        sizes = x.shape[1], x.shape[2], ignore_index
        run(_forward_task, sums.size, sizes, losses, x, weight, numbers=(smoothing,), places=target, table=sums)
        if reduction == "mean":
            count = _weight_of_targets(target, weight, ignore_index)
    return reduced(losses, sums, count, reduction)


def cross_entropy_backward(dy, x, target, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Return the gradient of the logits; without weights and smoothing ``dy * (softmax(x) - one_hot(target))``.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss: of its shape.
    x, target, weight, ignore_index, label_smoothing, reduction
        As in the forward call.

    Returns
    -------
    ndarray, shape of ``x``
        Gradient of ``x``; 0 for ignored pixels.

    Raises
    ------
    TypeError
        If ``x`` or ``weight`` is not an array of float32 or float64, or ``target`` not one of whole numbers.
    ValueError
        If the shapes do not fit, a target is no class, or a parameter is out of range.
    """
    shapes = np.shape(x), np.shape(target)
    x, target, weight, ignore_index, smoothing = checks.cross_entropy(x, target, weight, ignore_index, label_smoothing)
    dy = checks.loss_gradient(dy, x, reduction, shapes[1])
    weight = _class_weights(weight, x)
    dx = empty(shapes[0], x.dtype)
    if dx.size:
        count = _weight_of_targets(target, weight, ignore_index) if reduction == "mean" else 1
        factor, each = factors(upstream(dy, count, reduction))
        sizes = x.shape[1], x.shape[2], ignore_index
        run(_backward_task, _tasks(x), sizes, dx, x, weight, each, numbers=(smoothing, factor), places=target)
    return dx


def _class_weights(weight, x):
    """Return the weights of the classes, 1 if there are none."""
    return np.ones(x.shape[1], x.dtype) if weight is None else weight


def _weight_of_targets(target, weight, ignore_index):
    """Return the sum of the weights of the targets that count."""
    return float(weight[target[target != ignore_index]].sum(dtype=np.float64))


def _tasks(x):
    """Return the number of tasks."""
    return x.shape[0] * -(-x.shape[2] // PIXELS)


@jit
def _task_bounds(task, pixels, classes):
    """Return the index of a task's first logit, that of its first target, and its number of pixels."""
    per_picture = -(-pixels // PIXELS)
    n, start = task // per_picture, task % per_picture * PIXELS
    return n * classes * pixels + start, n * pixels + start, min(PIXELS, pixels - start)


@jit
def _forward_task(arrays, sizes, task):
    losses, x, weight, target, smoothing = arrays.out, arrays.a, arrays.b, arrays.places, arrays.numbers[0]
    classes, pixels, ignore_index = sizes[:3]
    first, first_target, count = _task_bounds(task, pixels, classes)
    kind, sum_of_losses = x.dtype.type, 0.0
    mine, spread = kind(1 - smoothing), kind(smoothing / weight.size)
    normaliser, total, even = np.empty(count, x.dtype), np.zeros(count, x.dtype), np.zeros(count, x.dtype)
    largest_and_sum(normaliser, total, total[:0], x, first, pixels, weight.size)
    for p in range(count):
        normaliser[p] += log(total[p])
    if spread > 0:
        for c in range(weight.size):
            line = x[first + c * pixels : first + c * pixels + count]
            for p in range(count):
                even[p] += spread * weight[c] * (normaliser[p] - line[p])
    for p in range(count):
        t = target[first_target + p]
        loss = kind(0)
        if t != ignore_index:
            loss = mine * weight[t] * (normaliser[p] - x[first + t * pixels + p]) + even[p]
        if losses.size:
            losses[first_target + p] = loss
        sum_of_losses += loss
    arrays.table[0, task] = sum_of_losses


@jit
def _backward_task(arrays, sizes, task):
    dx, x, weight, each, target = arrays.out, arrays.a, arrays.b, arrays.c, arrays.places
    classes, pixels, ignore_index = sizes[:3]
    first, first_target, count = _task_bounds(task, pixels, classes)
    kind, smoothing = x.dtype.type, arrays.numbers[0]
    mine, spread = kind(1 - smoothing), kind(smoothing / weight.size)
    spread_weight = spread * weight.sum()
    largest, total = np.empty(count, x.dtype), np.zeros(count, x.dtype)
    largest_and_sum(largest, total, total[:0], x, first, pixels, weight.size)
    # dx = softmax(x) * (weights in all) * dy - (weight of the class) * dy; slope is what belongs to exp(x - largest)
    scale, slope = np.empty(count, x.dtype), np.empty(count, x.dtype)
    for p in range(count):
        t = target[first_target + p]
        counts = t != ignore_index
        scale[p] = (each[first_target + p] if each.size else kind(arrays.numbers[1])) if counts else kind(0)
        slope[p] = ((mine * weight[t] if counts else kind(0)) + spread_weight) * scale[p] / total[p]
    for c in range(weight.size):
        line, even = slice(first + c * pixels, first + c * pixels + count), spread * weight[c]
        dx_line, x_line = dx[line], x[line]
        for p in range(count):
            dx_line[p] = exp(x_line[p] - largest[p]) * slope[p] - even * scale[p]
    for p in range(count):
        t = target[first_target + p]
        if t != ignore_index:
            dx[first + t * pixels + p] -= mine * weight[t] * scale[p]
        else:  # NaN or infinite logits times 0 are not 0
            for c in range(weight.size):
                dx[first + c * pixels + p] = kind(0)
