"""Cross entropy of classes, of logits seen as (N, C, P).

One task computes up to 1024 neighbouring pixels of one picture; the loops over classes stand outside those over pixels,
so that neighbouring pixels are computed at once. Sums are kept per task, in float64.
"""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import flat
from kernels.cpu.reduction import reduced, upstream
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
    losses, tasks = np.empty(shape if reduction == "none" else 0, x.dtype), _tasks(x)
    sums = np.zeros(tasks)
    count = 0.0
    if target.size:
        inputs = flat(x), flat(target), flat(weight)
        _cross_entropy_forward_kernel(losses.reshape(-1), sums, *inputs, x.shape[2], ignore_index, smoothing)
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
    dx = np.empty(shapes[0], x.dtype)
    if dx.size:
        count = _weight_of_targets(target, weight, ignore_index) if reduction == "mean" else 1
        inputs = upstream(dy, count, reduction), flat(x), flat(target), flat(weight)
        _cross_entropy_backward_kernel(dx.reshape(-1), *inputs, x.shape[2], ignore_index, smoothing, _tasks(x))
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
def _task_bounds(task, pixels):
    """Return the picture of a task, its first pixel and its number of pixels."""
    per_picture = -(-pixels // PIXELS)
    start = np.int64(task) % per_picture * PIXELS
    return np.int64(task) // per_picture, start, min(PIXELS, pixels - start)


@jit(parallel=True)
def _cross_entropy_forward_kernel(losses, sums, x, target, weight, pixels, ignore_index, smoothing):
    for task in prange(sums.size):
        n, start, count = _task_bounds(task, pixels)
        part = slice(n * pixels + start, n * pixels + start + count)
        first = n * weight.size * pixels + start
        sums[task] = _forward_task(losses[part], x[first:], target[part], weight, pixels, ignore_index, smoothing)


@jit
def _forward_task(losses, x, target, weight, pixels, ignore_index, smoothing):
    """Compute the pixels of ``target``, and return the sum of their losses; class c of pixel p is x[c * pixels + p]."""
    classes, count = weight.size, target.size
    normaliser = _log_sum_exp(x, classes, pixels, count)
    kind = x.dtype.type
    mine, spread = kind(1 - smoothing), kind(smoothing / classes)
    even = np.zeros(count, x.dtype)
    if spread > 0:
        for c in range(classes):
            _add_weighted_difference(even, normaliser, x[c * pixels : c * pixels + count], spread * weight[c])
    total = 0.0
    for p in range(count):
        t = target[p]
        loss = kind(0)
        if t != ignore_index:
            loss = mine * weight[t] * (normaliser[p] - x[t * pixels + p]) + even[p]
        if losses.size:
            losses[p] = loss
        total += loss
    return total


@jit
def _add_weighted_difference(total, normaliser, x, weight):
    for p in range(x.size):
        total[p] += weight * (normaliser[p] - x[p])


@jit
def _log_sum_exp(x, classes, pixels, count):
    """Return log(sum of exp(x) over the classes) of each pixel."""
    largest, total = _largest_and_sum(x, classes, pixels, count)
    for p in range(count):
        largest[p] += log(total[p])
    return largest


@jit
def _largest_and_sum(x, classes, pixels, count):
    """Return for each pixel the largest logit, and the sum of exp(logit - largest)."""
    largest, total = x[:count].copy(), np.zeros(count, x.dtype)
    for c in range(1, classes):
        _larger(largest, x[c * pixels : c * pixels + count])
    for c in range(classes):
        _add_exp_of_difference(total, x[c * pixels : c * pixels + count], largest)
    return largest, total


@jit
def _larger(largest, x):
    for p in range(x.size):
        largest[p] = x[p] if x[p] > largest[p] else largest[p]


@jit
def _add_exp_of_difference(total, x, largest):
    for p in range(x.size):
        total[p] += exp(x[p] - largest[p])


@jit(parallel=True)
def _cross_entropy_backward_kernel(dx, dy, x, target, weight, pixels, ignore_index, smoothing, tasks):
    for task in prange(tasks):
        n, start, count = _task_bounds(task, pixels)
        part = slice(n * pixels + start, n * pixels + start + count)
        first = n * weight.size * pixels + start
        dy_part = dy if dy.size == 1 else dy[part]
        _backward_task(dx[first:], dy_part, x[first:], target[part], weight, pixels, ignore_index, smoothing)


@jit
def _backward_task(dx, dy, x, target, weight, pixels, ignore_index, smoothing):
    """Compute the pixels of ``target``; class c of pixel p is element ``c * pixels + p``."""
    classes, count = weight.size, target.size
    kind = x.dtype.type
    mine, spread = kind(1 - smoothing), kind(smoothing / classes)
    spread_weight = spread * weight.sum()
    largest, total = _largest_and_sum(x, classes, pixels, count)
    scale, slope = np.empty(count, x.dtype), np.empty(count, x.dtype)
    for p in range(count):
        counts = target[p] != ignore_index
        scale[p] = (dy[p] if dy.size > 1 else dy[0]) if counts else kind(0)
        mine_weight = mine * weight[target[p]] if counts else kind(0)
        slope[p] = (mine_weight + spread_weight) * scale[p] / total[p]
    for c in range(classes):
        line = slice(c * pixels, c * pixels + count)
        _class_gradient(dx[line], x[line], largest, slope, scale, spread * weight[c])
    for p in range(count):
        if target[p] != ignore_index:
            dx[target[p] * pixels + p] -= mine * weight[target[p]] * scale[p]


@jit
def _class_gradient(dx, x, largest, slope, scale, spread):
    for p in range(x.size):
        dx[p] = exp(x[p] - largest[p]) * slope[p] - spread * scale[p]
