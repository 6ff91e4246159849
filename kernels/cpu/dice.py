"""Dice loss of logits. One task computes one block and its three sums in float64."""

import numpy as np

from kernels import checks
from kernels.cpu.blocks import block_count, row_and_slice
from kernels.cpu.memory import empty_like
from kernels.cpu.reduction import reduced, upstream
from kernels.cpu.sigmoid import sigmoid
from kernels.cpu.tasks import run
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
    dx = empty_like(x)
    if x.size:
        inner, denominator = _sums(x, target, rows)
        dy = upstream(dy, rows, reduction).astype(np.float64)
        with np.errstate(all="ignore"):
            # the derivative by p is constant + slope * target
            constant = dy * (2 * inner + smooth) / (denominator + smooth) ** 2
            slope = -2 * dy / (denominator + smooth)
            constants = np.stack(np.broadcast_arrays(constant, slope), axis=1)
        blocks = block_count(x.size // rows)
        run(_dice_backward_block, rows * blocks, (x.size // rows, blocks), dx, x, target, table=constants)
    return dx


def _rows(x, per_sample):
    """Return how many losses there are."""
    return x.shape[0] if per_sample and x.ndim else 1


def _sums(x, target, rows):
    """Return for each row the sum of p * target, and that of p + target."""
    blocks = block_count(x.size // rows)
    sums = np.empty((2, rows * blocks))
    run(_dice_sums_block, rows * blocks, (x.size // rows, blocks), np.empty(0, x.dtype), x, target, table=sums)
    with np.errstate(all="ignore"):
        return sums.reshape(2, rows, blocks).sum(axis=2)


@jit(fastmath=RELAXED)
def _dice_sums_block(arrays, sizes, task):
    part = row_and_slice(task, sizes[0], sizes[1])[1]
    x, target = arrays.a[part], arrays.b[part]
    of_product, of_both = 0.0, 0.0
    for i in range(x.size):
        p = sigmoid(x[i])
        of_product += p * target[i]
        of_both += p + target[i]
    arrays.table[0, task], arrays.table[1, task] = of_product, of_both


@jit
def _dice_backward_block(arrays, sizes, task):
    row, part = row_and_slice(task, sizes[0], sizes[1])
    dx, x, target, kind = arrays.out[part], arrays.a[part], arrays.b[part], arrays.a.dtype.type
    one, constant, slope = kind(1), kind(arrays.table[row, 0]), kind(arrays.table[row, 1])
    for i in range(x.size):
        p = sigmoid(x[i])
        dx[i] = (constant + slope * target[i]) * p * (one - p)
