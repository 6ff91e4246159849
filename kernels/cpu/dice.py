"""Dice loss of logits. One task computes one block and its three sums in float64."""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import block_bounds, block_count, flat
from kernels.cpu.reduction import reduced, upstream
from kernels.cpu.sigmoid import sigmoid
from kernels.jit import RELAXED, jit


def dice_forward(x, target, smooth=1.0, per_sample=False, reduction="mean"):
    """Return ``1 - (2 * sum(p * target) + smooth) / (sum(p) + sum(target) + smooth)``, where ``p = sigmoid(x)``.

    Parameters
    ----------
    x : ndarray, (N, ...), float32 or float64
        Logits.
    target : ndarray, shape of ``x``
        0 or 1, or between.
    smooth : float
        Keeps the quotient defined, and 1, where nothing is there and nothing is found.
    per_sample : bool
        Whether each picture has a loss of its own, instead of one loss over the whole array.
    reduction : {"none", "mean", "sum"}
        What becomes of the losses of the pictures.

    Returns
    -------
    ndarray, (N,) for ``per_sample`` with "none", else ()
        Loss, summed in float64; 0 over nothing.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes differ, ``smooth`` is negative, or there is no such reduction.

    Notes
    -----
    Milletari, Navab and Ahmadi, "V-Net", 2016, without the squares in the denominator.
    """
    checks.reduction(reduction)
    x, target = checks.loss_pair(x, target)
    smooth = checks.number("smooth", smooth, 0)
    rows = _rows(x, per_sample)
    losses = np.zeros(rows)
    if x.size:
        inner, denominator = _sums(x, target, rows)
        with np.errstate(all="ignore"):
            losses = 1 - (2 * inner + smooth) / (denominator + smooth)
    if reduction == "none":
        return losses.astype(x.dtype) if per_sample else losses.astype(x.dtype).reshape(())
    return reduced(np.empty(0, x.dtype), losses, rows, reduction)


def dice_backward(dy, x, target, smooth=1.0, per_sample=False, reduction="mean"):
    """Return the gradient of the logits of a Dice loss.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss: of its shape.
    x, target, smooth, per_sample, reduction
        As in the forward call.

    Returns
    -------
    ndarray, shape of ``x``
        Gradient of ``x``.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes do not fit, ``smooth`` is negative, or there is no such reduction.
    """
    x, target = checks.loss_pair(x, target)
    smooth = checks.number("smooth", smooth, 0)
    rows = _rows(x, per_sample)
    dy = checks.loss_gradient(dy, x, reduction, (rows,) if per_sample else ())
    dx = np.empty_like(x)
    if x.size:
        inner, denominator = _sums(x, target, rows)
        dy = upstream(dy, rows, reduction).astype(np.float64)
        with np.errstate(all="ignore"):
            # the derivative by p is constant + slope * target
            constant = dy * (2 * inner + smooth) / (denominator + smooth) ** 2
            slope = -2 * dy / (denominator + smooth)
            constant, slope = constant.astype(x.dtype), slope.astype(x.dtype)
        _dice_backward_kernel(dx.reshape(-1), flat(x), flat(target), constant, slope, block_count(x.size // rows))
    return dx


def _rows(x, per_sample):
    """Return how many losses there are."""
    return x.shape[0] if per_sample and x.ndim else 1


def _sums(x, target, rows):
    """Return for each row the sum of p * target, and that of p + target."""
    blocks = block_count(x.size // rows)
    sums = np.empty((2, rows * blocks))
    _dice_sums_kernel(sums[0], sums[1], flat(x), flat(target), rows, blocks)
    return sums.reshape(2, rows, blocks).sum(axis=2)


@jit
def _task_bounds(task, size, blocks):
    """Return the row of a task, and the bounds of its block in the flat array."""
    row = np.int64(task) // blocks
    start, stop = block_bounds(np.int64(task) % blocks, size)
    return row, row * size + start, row * size + stop


@jit(parallel=True)
def _dice_sums_kernel(inner, denominator, x, target, rows, blocks):
    for task in prange(rows * blocks):
        row, start, stop = _task_bounds(task, x.size // rows, blocks)
        inner[task], denominator[task] = _dice_sums_block(x[start:stop], target[start:stop])


@jit(fastmath=RELAXED)
def _dice_sums_block(x, target):
    inner, denominator = 0.0, 0.0
    for i in range(x.size):
        p = sigmoid(x[i])
        inner += p * target[i]
        denominator += p + target[i]
    return inner, denominator


@jit(parallel=True)
def _dice_backward_kernel(dx, x, target, constant, slope, blocks):
    for task in prange(constant.size * blocks):
        row, start, stop = _task_bounds(task, x.size // constant.size, blocks)
        part = slice(start, stop)
        _dice_backward_block(dx[part], x[part], target[part], constant[row], slope[row])


@jit
def _dice_backward_block(dx, x, target, constant, slope):
    one = x.dtype.type(1)
    for i in range(x.size):
        p = sigmoid(x[i])
        dx[i] = (constant + slope * target[i]) * p * (one - p)
