"""Binary cross entropy, on probabilities and on logits. One task computes one block and its sum in float64."""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice, flat
from kernels.cpu.reduction import buffers, reduced, upstream
from kernels.cpu.sigmoid import sigmoid
from kernels.cpu.vector_math import exp, log, log1p
from kernels.jit import RELAXED, jit


def binary_cross_entropy_forward(p, target, weight=None, reduction="mean"):
    """Return ``-(target * log(p) + (1 - target) * log(1 - p))``.

    Parameters
    ----------
    p : ndarray, any shape, float32 or float64
        Probabilities, from 0 to 1.
    target : ndarray, shape of ``p``
        What they should be, from 0 to 1.
    weight : ndarray, optional
        Factor of each loss; broadcasts to the shape of ``p``.
    reduction : {"none", "mean", "sum"}
        What becomes of the single losses. The mean divides by their number, whatever the weights.

    Returns
    -------
    ndarray, shape of ``p`` for "none", else ()
        Loss, summed in float64; 0 over nothing.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes do not fit, a value is outside [0, 1], or there is no such reduction.

    Notes
    -----
    As in PyTorch, logarithms below -100 count as -100.
    """
    checks.reduction(reduction)
    p, target = checks.probabilities(p, target)
    weight = checks.broadcast_to("weight", weight, p)
    losses, sums = buffers(p.shape, reduction, p.dtype)
    if p.size:
        _probability_forward_kernel(losses.reshape(-1), sums, flat(p), flat(target), flat(weight, p.dtype))
    return reduced(losses, sums, p.size, reduction)


def binary_cross_entropy_backward(dy, p, target, weight=None, reduction="mean"):
    """Return the gradient of the probabilities, ``dy * (p - target) / (p * (1 - p))``.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss: of its shape.
    p, target, weight, reduction
        As in the forward call.

    Returns
    -------
    ndarray, shape of ``p``
        Gradient of ``p``.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes do not fit, a value is outside [0, 1], or there is no such reduction.

    Notes
    -----
    As in PyTorch, the denominator is at least 1e-12.
    """
    p, target = checks.probabilities(p, target)
    weight = checks.broadcast_to("weight", weight, p)
    dy = checks.loss_gradient(dy, p, reduction)
    dp = np.empty_like(p)
    if p.size:
        inputs = upstream(dy, p.size, reduction), flat(p), flat(target), flat(weight, p.dtype)
        _probability_backward_kernel(dp.reshape(-1), *inputs, block_count(p.size))
    return dp


def binary_cross_entropy_with_logits_forward(x, target, weight=None, pos_weight=None, reduction="mean"):
    """Return the binary cross entropy of ``sigmoid(x)``, without computing a logarithm of a rounded probability.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Logits.
    target : ndarray, shape of ``x``
        What their probabilities should be, from 0 to 1.
    weight : ndarray, optional
        Factor of each loss; broadcasts to the shape of ``x``.
    pos_weight : ndarray, optional
        Factor of the part of a loss that ``target`` contributes; broadcasts to the shape of ``x``.
    reduction : {"none", "mean", "sum"}
        What becomes of the single losses. The mean divides by their number, whatever the weights.

    Returns
    -------
    ndarray, shape of ``x`` for "none", else ()
        Loss, summed in float64; 0 over nothing.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes do not fit or there is no such reduction.
    """
    checks.reduction(reduction)
    x, target = checks.loss_pair(x, target)
    weight, pos_weight = _weights(weight, pos_weight, x)
    losses, sums = buffers(x.shape, reduction, x.dtype)
    if x.size:
        weights = flat(weight, x.dtype), flat(pos_weight, x.dtype)
        _logits_forward_kernel(losses.reshape(-1), sums, flat(x), flat(target), *weights)
    return reduced(losses, sums, x.size, reduction)


def binary_cross_entropy_with_logits_backward(dy, x, target, weight=None, pos_weight=None, reduction="mean"):
    """Return the gradient of the logits; without weights it is ``dy * (sigmoid(x) - target)``.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss: of its shape.
    x, target, weight, pos_weight, reduction
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
        If the shapes do not fit or there is no such reduction.
    """
    x, target = checks.loss_pair(x, target)
    weight, pos_weight = _weights(weight, pos_weight, x)
    dy = checks.loss_gradient(dy, x, reduction)
    dx = np.empty_like(x)
    if x.size:
        weights = flat(weight, x.dtype), flat(pos_weight, x.dtype)
        inputs = upstream(dy, x.size, reduction), flat(x), flat(target), *weights
        _logits_backward_kernel(dx.reshape(-1), *inputs, block_count(x.size))
    return dx


def _weights(weight, pos_weight, x):
    """Return both weights as arrays of the shape of ``x``, or both as None: one case less inside the loops."""
    weight, pos_weight = checks.broadcast_to("weight", weight, x), checks.broadcast_to("pos_weight", pos_weight, x)
    if weight is None and pos_weight is not None:
        weight = np.ones_like(x)
    if pos_weight is None and weight is not None:
        pos_weight = np.ones_like(x)
    return weight, pos_weight


@jit(parallel=True)
def _probability_forward_kernel(losses, sums, p, target, weight):
    for block in prange(sums.size):
        _probability_forward_block(np.int64(block), losses, sums, p, target, weight)


@jit(fastmath=RELAXED)
def _probability_forward_block(block, losses, sums, p, target, weight):
    part = block_slice(block, p.size)
    losses, p, target, weight = losses[part], p[part], target[part], weight[part]
    one, least = p.dtype.type(1), p.dtype.type(-100)
    total = 0.0
    for i in range(p.size):
        log_p, log_rest = log(p[i]), log1p(-p[i])
        log_p = least if log_p < least else log_p
        log_rest = least if log_rest < least else log_rest
        loss = (target[i] - one) * log_rest - target[i] * log_p
        if weight.size:
            loss *= weight[i]
        if losses.size:
            losses[i] = loss
        total += loss
    sums[block] = total


@jit(parallel=True)
def _probability_backward_kernel(dp, dy, p, target, weight, blocks):
    for block in prange(blocks):
        _probability_backward_block(np.int64(block), dp, dy, p, target, weight)


@jit
def _probability_backward_block(block, dp, dy, p, target, weight):
    part = block_slice(block, p.size)
    dp, p, target, weight, dy = dp[part], p[part], target[part], weight[part], dy[part] if dy.size > 1 else dy
    one, least = p.dtype.type(1), p.dtype.type(1e-12)
    for i in range(p.size):
        width = p[i] * (one - p[i])
        gradient = (p[i] - target[i]) / (least if width < least else width)
        if weight.size:
            gradient *= weight[i]
        dp[i] = gradient * (dy[i] if dy.size > 1 else dy[0])


@jit(parallel=True)
def _logits_forward_kernel(losses, sums, x, target, weight, pos_weight):
    for block in prange(sums.size):
        _logits_forward_block(np.int64(block), losses, sums, x, target, weight, pos_weight)


@jit(inline="always")  # LLVM finds it too long to inline, and a call cannot be vectorised
def logit_loss(x, target, pos_weight):
    """Return the binary cross entropy of one logit, in its own type.

    It is pos_weight * target * log(1 + exp(-x)) + (1 - target) * log(1 + exp(x)), but never a difference of large
    numbers.
    """
    small = log1p(exp(-abs(x)))
    wanted, rest = pos_weight * target, type(x)(1) - target
    return (wanted + rest) * small + abs(x) * (wanted if x < 0 else rest)


@jit(fastmath=RELAXED)
def _logits_forward_block(block, losses, sums, x, target, weight, pos_weight):
    part = block_slice(block, x.size)
    losses, x, target, weight, pos_weight = losses[part], x[part], target[part], weight[part], pos_weight[part]
    one = x.dtype.type(1)
    total = 0.0
    for i in range(x.size):
        loss = (
            weight[i] * logit_loss(x[i], target[i], pos_weight[i]) if weight.size else logit_loss(x[i], target[i], one)
        )
        if losses.size:
            losses[i] = loss
        total += loss
    sums[block] = total


@jit(parallel=True)
def _logits_backward_kernel(dx, dy, x, target, weight, pos_weight, blocks):
    for block in prange(blocks):
        _logits_backward_block(np.int64(block), dx, dy, x, target, weight, pos_weight)


@jit
def _logits_backward_block(block, dx, dy, x, target, weight, pos_weight):
    part = block_slice(block, x.size)
    dx, x, target, dy = dx[part], x[part], target[part], dy[part] if dy.size > 1 else dy
    weight, pos_weight = weight[part], pos_weight[part]
    one = x.dtype.type(1)
    for i in range(x.size):
        p, t = sigmoid(x[i]), target[i]
        if weight.size:
            wanted = pos_weight[i] * t
            gradient = weight[i] * ((wanted + one - t) * p - wanted)
        else:
            gradient = p - t
        dx[i] = gradient * (dy[i] if dy.size > 1 else dy[0])
