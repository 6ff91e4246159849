"""Dice loss of logits. One task computes one block and its three sums in float64."""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import block_count, flat, row_and_slice
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
            constants = np.stack((constant, slope), axis=1, dtype=x.dtype, casting="same_kind")
        size = x.size // rows
        _dice_backward_kernel(dx.reshape(-1), flat(x), flat(target), constants, size, block_count(size))
    return dx


def _rows(x, per_sample):
    """Return how many losses there are."""
    return x.shape[0] if per_sample and x.ndim else 1


def _sums(x, target, rows):
    """Return for each row the sum of p * target, and that of p + target."""
    blocks = block_count(x.size // rows)
    sums = np.empty((2, rows * blocks))
    _dice_sums_kernel(sums[0], sums[1], flat(x), flat(target), x.size // rows, blocks)
    with np.errstate(all="ignore"):
        return sums.reshape(2, rows, blocks).sum(axis=2)


@jit(parallel=True)
def _dice_sums_kernel(inner, denominator, x, target, size, blocks):
    for task in prange(inner.size):
        _dice_sums_block(np.int64(task), inner, denominator, x, target, size, blocks)


@jit(fastmath=RELAXED)
def _dice_sums_block(task, inner, denominator, x, target, size, blocks):
    part = row_and_slice(task, size, blocks)[1]
    x, target = x[part], target[part]
    of_product, of_both = 0.0, 0.0
    for i in range(x.size):
        p = sigmoid(x[i])
        of_product += p * target[i]
        of_both += p + target[i]
    inner[task], denominator[task] = of_product, of_both


@jit(parallel=True)
def _dice_backward_kernel(dx, x, target, constants, size, blocks):
    for task in prange(constants.shape[0] * blocks):
        _dice_backward_block(np.int64(task), dx, x, target, constants, size, blocks)


@jit
def _dice_backward_block(task, dx, x, target, constants, size, blocks):
    row, part = row_and_slice(task, size, blocks)
    constant, slope = constants[row]
    dx, x, target = dx[part], x[part], target[part]
    one = x.dtype.type(1)
    for i in range(x.size):
        p = sigmoid(x[i])
        dx[i] = (constant + slope * target[i]) * p * (one - p)
