"""Cross entropy of classes, of logits seen as (N, C, P).

One task computes a block of pixels, as in `kernels.cpu.softmax`. Sums are kept per task, in float64.
"""

import numpy as np

from kernels import checks
from kernels.cpu.channels_last import transpose
from kernels.cpu.memory import empty
from kernels.cpu.reduction import buffers, factors, reduced, upstream
from kernels.cpu.softmax import block_of, largest_and_sum, layout, turned
from kernels.cpu.tasks import run
from kernels.cpu.vector_math import exp, log
from kernels.jit import RELAXED, jit


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
    tasks, sizes = layout(x.shape, 1)
    losses, sums = buffers(shape, reduction, x.dtype, tasks)
    count = 0.0
    if target.size:
        more = {"numbers": (smoothing,), "places": target, "table": sums}
        run(_forward_task, tasks, (*sizes, ignore_index), losses, x, _class_weights(weight, x), **more)
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
    dx = empty(shapes[0], x.dtype)
    if dx.size:
        count = _weight_of_targets(target, weight, ignore_index) if reduction == "mean" else 1
        factor, each = factors(upstream(dy, count, reduction))
        tasks, sizes = layout(x.shape, 1)
        more = {"numbers": (smoothing, factor), "places": target}
        run(_backward_task, tasks, (*sizes, ignore_index), dx, x, _class_weights(weight, x), each, **more)
    return dx


def _class_weights(weight, x):
    """Return the weights of the classes, 1 if there are none."""
    return np.ones(x.shape[1], x.dtype) if weight is None else weight


def _weight_of_targets(target, weight, ignore_index):
    """Return the sum of the weights of the targets that count."""
    counts = target != ignore_index
    return float(np.count_nonzero(counts) if weight is None else weight[target[counts]].sum(dtype=np.float64))


@jit
def _look_up(chosen, weights, target, weight, ignore_index):
    """Find each target's class and what it weighs, -1 and 0 if it is ignored; return whether some are."""
    least = np.int32(0)
    for p in range(target.size):
        chosen[p] = target[p] if target[p] != ignore_index else -1
        # unsigned: nobody looks whether it counts from the end
        weights[p] = weight[np.uint64(max(chosen[p], np.int32(0)))] if chosen[p] >= 0 else weight.dtype.type(0)
        least = min(least, chosen[p])
    return least < 0


@jit(fastmath=RELAXED)
def _forward_task(arrays, sizes, task):
    first, first_target, count = block_of(sizes, task)
    classes, inner, part = sizes[1], sizes[2], slice(first_target, first_target + count)
    losses = arrays.out[part] if arrays.out.size else np.empty(count, arrays.a.dtype)
    if inner == 1:
        _losses(losses, arrays, part, turned(arrays.a, first, count, classes), 0, count, classes, sizes[4])
    else:
        _losses(losses, arrays, part, arrays.a, first, inner, classes, sizes[4])
    total = 0.0
    for p in range(count):
        total += losses[p]
    arrays.table[0, task] = total


@jit
def _losses(losses, arrays, part, x, first, inner, classes, ignore_index):
    """Compute a part of the losses, whose class c begins at number ``first + c * inner`` of x."""
    weight, target = arrays.b, arrays.places[part]
    kind, smoothing, count = x.dtype.type, arrays.numbers[0], target.size
    mine, spread = kind(1 - smoothing), kind(smoothing / classes)
    normaliser, total, even = np.empty(count, x.dtype), np.zeros(count, x.dtype), np.zeros(count, x.dtype)
    chosen, weights = np.empty(count, np.int32), np.empty(count, x.dtype)
    largest_and_sum(normaliser, total, total[:0], x, first, inner, classes)
    for p in range(count):
        normaliser[p] += log(total[p])
    if spread > 0:
        for c in range(classes):
            line = x[first + c * inner : first + c * inner + count]
            for p in range(count):
                even[p] += spread * weight[c] * (normaliser[p] - line[p])
    _look_up(chosen, weights, target, weight, ignore_index)
    for p in range(count):
        place = np.uint64(first + np.int64(max(chosen[p], np.int32(0))) * inner + p)
        loss = mine * weights[p] * (normaliser[p] - x[place]) + even[p]
        losses[p] = loss if chosen[p] >= 0 else kind(0)


@jit
def _backward_task(arrays, sizes, task):
    first, first_target, count = block_of(sizes, task)
    classes, inner = sizes[1], sizes[2]
    part = slice(first_target, first_target + count)
    if inner == 1:
        x = turned(arrays.a, first, count, classes)
        dx = np.empty_like(x)
        _gradients(dx, arrays, part, x, 0, count, classes, sizes[4])
        transpose(arrays.out, first, classes, dx, 0, count, classes, count)
    else:
        _gradients(arrays.out, arrays, part, arrays.a, first, inner, classes, sizes[4])


@jit
def _gradients(dx, arrays, part, x, first, inner, classes, ignore_index):
    """Compute the gradients of a part of the losses, laid out as in `_losses`."""
    weight, each, target = arrays.b, arrays.c[part], arrays.places[part]
    kind, smoothing, count = x.dtype.type, arrays.numbers[0], target.size
    mine, spread, factor = kind(1 - smoothing), kind(smoothing / classes), kind(arrays.numbers[1])
    spread_weight = spread * weight.sum()
    chosen, weights = np.empty(count, np.int32), np.empty(count, x.dtype)
    largest, total = np.empty(count, x.dtype), np.zeros(count, x.dtype)
    largest_and_sum(largest, total, total[:0], x, first, inner, classes)
    some_ignored = _look_up(chosen, weights, target, weight, ignore_index)
    # dx = softmax(x) * (weights in all) * dy - (weight of the class) * dy; slope is what belongs to exp(x - largest)
    scale, slope = np.empty(count, x.dtype), np.empty(count, x.dtype)
    for p in range(count):
        scale[p] = each[p] if each.size else factor
        slope[p] = (mine * weights[p] + spread_weight) * scale[p] / total[p]
        weights[p] *= mine * scale[p]
    for c in range(classes):
        line, even = slice(first + c * inner, first + c * inner + count), spread * weight[c]
        dx_line, x_line = dx[line], x[line]
        for p in range(count):
            wanted = weights[p] if chosen[p] == c else kind(0)
            dx_line[p] = exp(x_line[p] - largest[p]) * slope[p] - (even * scale[p] + wanted)
    for p in range(count if some_ignored else 0):
        if chosen[p] < 0:  # 0, whatever its logits and the gradient are
            for c in range(classes):
                dx[first + c * inner + p] = kind(0)
