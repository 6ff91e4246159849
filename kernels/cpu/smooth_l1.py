"""Smooth L1 loss. One task computes one block and its sum in float64."""

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice
from kernels.cpu.memory import empty_like
from kernels.cpu.reduction import buffers, factors, reduced, upstream
from kernels.cpu.tasks import run
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
        run(_smooth_l1_forward_block, sums.size, (x.size,), losses, x, target, numbers=(beta,), table=sums)
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
    dx = empty_like(x)
    if x.size:
        factor, each = factors(upstream(dy, x.size, reduction))
        blocks = block_count(x.size)
        run(_smooth_l1_backward_block, blocks, (x.size,), dx, x, target, each, numbers=(beta, factor))
    return dx


@jit(fastmath=RELAXED)
def _smooth_l1_forward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    losses, x, target = arrays.out[part], arrays.a[part], arrays.b[part]
    half, beta = x.dtype.type(0.5), x.dtype.type(arrays.numbers[0])
    total = 0.0
    for i in range(x.size):
        d = abs(x[i] - target[i])
        loss = half * d * d / beta if d < beta else d - half * beta
        if losses.size:
            losses[i] = loss
        total += loss
    arrays.table[0, block] = total


@jit
def _smooth_l1_backward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    dx, x, target, each = arrays.out[part], arrays.a[part], arrays.b[part], arrays.c[part]
    kind = x.dtype.type
    zero, one, beta, factor = kind(0), kind(1), kind(arrays.numbers[0]), kind(arrays.numbers[1])
    for i in range(x.size):
        d = x[i] - target[i]
        # not d / beta where beta is 0, except for NaN
        sign = one if d > zero else (-one if d < zero else zero)
        slope = sign if abs(d) >= beta else d / beta
        dx[i] = slope * (each[i] if each.size else factor)
