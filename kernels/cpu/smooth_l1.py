"""Smooth L1 loss. One task computes one block and its sum in float64."""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice, flat
from kernels.cpu.reduction import buffers, reduced, upstream
from kernels.jit import RELAXED, jit


def smooth_l1_forward(x, target, beta=1.0, reduction="mean"):
    """Return ``d**2 / (2 * beta)`` where ``d = |x - target|`` is below ``beta``, else ``d - beta / 2``.

    Parameters
    ----------
    x, target : ndarray, any one shape, float32 or float64
        What is, and what should be.
    beta : float
        Where the loss turns from a square into a line; 0 gives the L1 loss.
    reduction : {"none", "mean", "sum"}
        What becomes of the single losses.

    Returns
    -------
    ndarray, shape of ``x`` for "none", else ()
        Loss, summed in float64; 0 over nothing.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes differ, ``beta`` is negative, or there is no such reduction.

    Notes
    -----
    Girshick, "Fast R-CNN", 2015; ``beta`` as in PyTorch.
    """
    checks.reduction(reduction)
    x, target = checks.loss_pair(x, target)
    beta = x.dtype.type(checks.number("beta", beta, 0))
    losses, sums = buffers(x.shape, reduction, x.dtype)
    if x.size:
        _smooth_l1_forward_kernel(losses.reshape(-1), sums, flat(x), flat(target), beta)
    return reduced(losses, sums, x.size, reduction)


def smooth_l1_backward(dy, x, target, beta=1.0, reduction="mean"):
    """Return the gradient of ``x``: ``dy`` times the difference over ``beta`` or, beyond it, times its sign.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss: of its shape.
    x, target, beta, reduction
        As in the forward call.

    Returns
    -------
    ndarray, shape of ``x``
        Gradient of ``x``; that of ``target`` is its negative.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes do not fit, ``beta`` is negative, or there is no such reduction.
    """
    x, target = checks.loss_pair(x, target)
    dy = checks.loss_gradient(dy, x, reduction)
    beta = x.dtype.type(checks.number("beta", beta, 0))
    dx = np.empty_like(x)
    if x.size:
        inputs = upstream(dy, x.size, reduction), flat(x), flat(target)
        _smooth_l1_backward_kernel(dx.reshape(-1), *inputs, beta, block_count(x.size))
    return dx


@jit(parallel=True)
def _smooth_l1_forward_kernel(losses, sums, x, target, beta):
    for block in prange(sums.size):
        _smooth_l1_forward_block(np.int64(block), losses, sums, x, target, beta)


@jit(fastmath=RELAXED)
def _smooth_l1_forward_block(block, losses, sums, x, target, beta):
    part = block_slice(block, x.size)
    losses, x, target = losses[part], x[part], target[part]
    half = x.dtype.type(0.5)
    total = 0.0
    for i in range(x.size):
        d = abs(x[i] - target[i])
        loss = half * d * d / beta if d < beta else d - half * beta
        if losses.size:
            losses[i] = loss
        total += loss
    sums[block] = total


@jit(parallel=True)
def _smooth_l1_backward_kernel(dx, dy, x, target, beta, blocks):
    for block in prange(blocks):
        _smooth_l1_backward_block(np.int64(block), dx, dy, x, target, beta)


@jit
def _smooth_l1_backward_block(block, dx, dy, x, target, beta):
    part = block_slice(block, x.size)
    dx, x, target, dy = dx[part], x[part], target[part], dy[part] if dy.size > 1 else dy
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(x.size):
        d = x[i] - target[i]
        # not d / beta where beta is 0, except for NaN
        sign = one if d > zero else (-one if d < zero else zero)
        slope = sign if abs(d) >= beta else d / beta
        dx[i] = slope * (dy[i] if dy.size > 1 else dy[0])
