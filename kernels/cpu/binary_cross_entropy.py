"""Binary cross entropy, on probabilities and on logits. One task computes one block and its sum in float64."""

import numpy as np

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice
from kernels.cpu.memory import empty_like
from kernels.cpu.reduction import buffers, factors, reduced, upstream
from kernels.cpu.sigmoid import sigmoid
from kernels.cpu.tasks import run
from kernels.cpu.vector_math import exp, log, log1p, log1p_of_share
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
        run(_probability_forward_block, sums.size, (p.size,), losses, p, target, weight, table=sums)
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
    dp = empty_like(p)
    if p.size:
        factor, each = factors(upstream(dy, p.size, reduction), weight)
        run(_probability_backward_block, block_count(p.size), (p.size,), dp, p, target, each, numbers=(factor,))
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
        run(_logits_forward_block, sums.size, (x.size,), losses, x, target, weight, pos_weight, table=sums)
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
    dx = empty_like(x)
    if x.size:
        factor, each = factors(upstream(dy, x.size, reduction), weight)
        inputs = dx, x, target, each, pos_weight
        run(_logits_backward_block, block_count(x.size), (x.size,), *inputs, numbers=(factor,))
    return dx


def _weights(weight, pos_weight, x):
    """Return both weights as arrays of the shape of ``x``, or both as None: one case less inside the loops."""
    weight, pos_weight = checks.broadcast_to("weight", weight, x), checks.broadcast_to("pos_weight", pos_weight, x)
    if weight is None and pos_weight is not None:
        weight = np.ones_like(x)
    if pos_weight is None and weight is not None:
        pos_weight = np.ones_like(x)
    return weight, pos_weight


@jit(fastmath=RELAXED)
def _probability_forward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    losses, p, target, weight = arrays.out[part], arrays.a[part], arrays.b[part], arrays.c[part]
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
    arrays.table[0, block] = total


@jit
def _probability_backward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    dp, p, target, each = arrays.out[part], arrays.a[part], arrays.b[part], arrays.c[part]
    kind = p.dtype.type
    one, least, factor = kind(1), kind(1e-12), kind(arrays.numbers[0])
    for i in range(p.size):
        width = p[i] * (one - p[i])
        gradient = (p[i] - target[i]) / (least if width < least else width)
        dp[i] = gradient * (each[i] if each.size else factor)


@jit(inline="always")  # LLVM finds it too long to inline, and a call cannot be vectorised
def logit_loss(x, target, pos_weight):
    """Return the binary cross entropy of one logit, in its own type.

    It is pos_weight * target * log(1 + exp(-x)) + (1 - target) * log(1 + exp(x)), but never a difference of large
    numbers.
    """
    small = log1p_of_share(exp(-abs(x)))
    wanted, rest = pos_weight * target, type(x)(1) - target
    return (wanted + rest) * small + abs(x) * (wanted if x < 0 else rest)


@jit(fastmath=RELAXED)
def _logits_forward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    losses, x, target, weight, pos_weight = (
        arrays.out[part], arrays.a[part], arrays.b[part], arrays.c[part], arrays.d[part],
    )  # fmt: skip
    one = x.dtype.type(1)
    total = 0.0
    for i in range(x.size):
        loss = logit_loss(x[i], target[i], pos_weight[i] if weight.size else one)
        if weight.size:
            loss *= weight[i]
        if losses.size:
            losses[i] = loss
        total += loss
    arrays.table[0, block] = total


@jit
def _logits_backward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    dx, x, target, each, pos_weight = (
        arrays.out[part], arrays.a[part], arrays.b[part], arrays.c[part], arrays.d[part],
    )  # fmt: skip
    one, factor = x.dtype.type(1), x.dtype.type(arrays.numbers[0])
    for i in range(x.size):
        p, t = sigmoid(x[i]), target[i]
        gradient = p - t
        if pos_weight.size:
            wanted = pos_weight[i] * t
            gradient = (wanted + one - t) * p - wanted
        dx[i] = gradient * (each[i] if each.size else factor)
