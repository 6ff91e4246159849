"""Sigmoid focal loss. One task computes one block and its sum in float64."""

from kernels import checks
from kernels.cpu.binary_cross_entropy import logit_loss
from kernels.cpu.blocks import block_count, block_slice
from kernels.cpu.memory import empty_like
from kernels.cpu.reduction import buffers, factors, reduced, upstream
from kernels.cpu.tasks import run
from kernels.cpu.vector_math import exp, log
from kernels.jit import RELAXED, jit


def sigmoid_focal_forward(x, target, alpha=0.25, gamma=2.0, reduction="none"):
    """Return ``alpha_t * miss**gamma * cross_entropy``, where ``miss`` is how far ``sigmoid(x)`` is from ``target``.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Logits.
    target : ndarray, shape of ``x``
        0 or 1, or between.
    alpha : float
        Factor of the losses with target 1; those with target 0 have ``1 - alpha``. Negative: no factors.
    gamma : float
        The larger, the less the pixels count that are right already.
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
        If the shapes differ, ``gamma`` is negative, ``alpha`` above 1, or there is no such reduction.

    Notes
    -----
    Lin, Goyal, Girshick, He and Dollar, "Focal Loss for Dense Object Detection", 2017; arguments as in torchvision.
    """
    checks.reduction(reduction)
    x, target = checks.loss_pair(x, target)
    parameters = _parameters(alpha, gamma)
    losses, sums = buffers(x.shape, reduction, x.dtype)
    if x.size:
        run(_sigmoid_focal_forward_block, sums.size, (x.size,), losses, x, target, numbers=parameters, table=sums)
    return reduced(losses, sums, x.size, reduction)


def sigmoid_focal_backward(dy, x, target, alpha=0.25, gamma=2.0, reduction="none"):
    """Return the gradient of the logits of a sigmoid focal loss.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss: of its shape.
    x, target, alpha, gamma, reduction
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
        If the shapes do not fit, ``gamma`` is negative, ``alpha`` above 1, or there is no such reduction.
    """
    x, target = checks.loss_pair(x, target)
    dy = checks.loss_gradient(dy, x, reduction)
    parameters = _parameters(alpha, gamma)
    dx = empty_like(x)
    if x.size:
        factor, each = factors(upstream(dy, x.size, reduction))
        numbers, blocks = (*parameters, factor), block_count(x.size)
        run(_sigmoid_focal_backward_block, blocks, (x.size,), dx, x, target, each, numbers=numbers)
    return dx


def _parameters(alpha, gamma):
    """Return the factor where the target is 0, what a target of 1 adds to it, and gamma."""
    alpha, gamma = checks.number("alpha", alpha, None, 1), checks.number("gamma", gamma, 0)
    first, more = (1 - alpha, 2 * alpha - 1) if alpha >= 0 else (1, 0)
    return first, more, gamma


# inline: LLVM finds them too long, and a call cannot be vectorised
@jit(inline="always")
def _power(base, exponent):
    """Return ``base ** exponent`` of numbers of at least 0, in their own type."""
    return exp(exponent * log(base)) if exponent > 0 else type(base)(1)


@jit(inline="always")
def _probabilities(x):
    """Return ``sigmoid(x)`` and ``sigmoid(-x)``, neither rounded by being taken from 1."""
    e = exp(-abs(x))
    larger = type(x)(1) / (type(x)(1) + e)
    smaller = e * larger
    return (smaller, larger) if x < 0 else (larger, smaller)


@jit(fastmath=RELAXED)
def _sigmoid_focal_forward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    losses, x, target = arrays.out[part], arrays.a[part], arrays.b[part]
    kind, numbers = x.dtype.type, arrays.numbers
    one, first, more, gamma = kind(1), kind(numbers[0]), kind(numbers[1]), kind(numbers[2])
    total = 0.0
    for i in range(x.size):
        t = target[i]
        p, rest = _probabilities(x[i])
        miss = (one - t) * p + t * rest
        loss = (first + more * t) * _power(miss, gamma) * logit_loss(x[i], t, one)
        if losses.size:
            losses[i] = loss
        total += loss
    arrays.table[0, block] = total


@jit
def _sigmoid_focal_backward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    dx, x, target, each = arrays.out[part], arrays.a[part], arrays.b[part], arrays.c[part]
    kind, numbers = x.dtype.type, arrays.numbers
    zero, one, factor = kind(0), kind(1), kind(numbers[3])
    first, more, gamma = kind(numbers[0]), kind(numbers[1]), kind(numbers[2])
    for i in range(x.size):
        t = target[i]
        p, rest = _probabilities(x[i])
        miss = (one - t) * p + t * rest
        power = _power(miss, gamma)
        # the derivative of miss**gamma: by miss, then of miss by x; 0 where miss is, though 0**(gamma - 1) may not be
        by_x = zero if miss <= zero else gamma * power / miss * (one - t - t) * p * rest
        gradient = (first + more * t) * (power * (p - t) + by_x * logit_loss(x[i], t, one))
        dx[i] = gradient * (each[i] if each.size else factor)
