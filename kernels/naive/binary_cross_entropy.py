"""Binary cross entropy: how badly probabilities fit targets of 0 and 1 (or anything between).

On probabilities p, with target t and weight w:

    loss = -w * (t * log(p) + (1 - t) * log(1 - p))            logs are at least -100
    d loss / dp = w * (p - t) / (p * (1 - p))                  the denominator is at least 1e-12

On scores x, with ``p = 1 / (1 + exp(-x))`` put in, and positives weighted by ``pos_weight``:

    loss = -w * (pos_weight * t * log(p) + (1 - t) * log(1 - p))
         = w * ((1 - t) * x + (1 + (pos_weight - 1) * t) * log(1 + exp(-x)))

    d loss / dx = w * ((1 - t) - (1 + (pos_weight - 1) * t) * (1 - p))      which is w * (p - t) without pos_weight

In the last form of the loss nothing is subtracted from 1 and no log is taken of 0, so scores should be preferred to
probabilities. ``log(1 + exp(-x)) = max(-x, 0) + log(1 + exp(-|x|))`` keeps exp from overflowing. The clamps are
PyTorch's.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit
from kernels.naive.reduction import reduce, spread


def binary_cross_entropy_forward(p, target, weight=None, reduction="mean"):
    """Return the binary cross entropy of probabilities.

    Parameters
    ----------
    p : ndarray
        Probabilities, any shape, float32 or float64.
    target : ndarray
        Of p's shape and type, from 0 to 1.
    weight : ndarray, optional
        Factor of each loss; broadcasts to p's shape.
    reduction : {"none", "mean", "sum"}
        One loss per element, or their mean or sum. A mean divides by the number of elements, not by the weights.

    Returns
    -------
    ndarray
        Of p's shape with "none", otherwise with no axes; of p's type.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not p's.
    ValueError
        If shapes do not fit each other, or p or target leaves 0 to 1.

    Notes
    -----
    Follows ``torch.nn.functional.binary_cross_entropy``.
    """
    p, target = checks.probabilities(p, target)
    weight = _ones_if_none(checks.broadcast_to("weight", weight, p), p)
    reduction = checks.reduction(reduction)
    losses = np.empty(p.size, np.float64)
    _probability_kernel(losses, p.reshape(-1), target.reshape(-1), weight.reshape(-1))
    return reduce(losses, reduction, p.dtype, p.shape)


def binary_cross_entropy_backward(dy, p, target, weight=None, reduction="mean"):
    """Return the gradient of `binary_cross_entropy_forward` with respect to the probabilities.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss, of its shape.
    p, target, weight, reduction
        As given to `binary_cross_entropy_forward`.

    Returns
    -------
    ndarray
        Of p's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy_forward`, and if dy has not the shape of the loss.
    """
    p, target = checks.probabilities(p, target)
    weight = _ones_if_none(checks.broadcast_to("weight", weight, p), p)
    dy = spread(checks.loss_gradient(dy, p, reduction), p.shape, reduction)
    dp = np.empty_like(p)
    _probability_gradient_kernel(dp.reshape(-1), dy, p.reshape(-1), target.reshape(-1), weight.reshape(-1))
    return dp


def binary_cross_entropy_with_logits_forward(x, target, weight=None, pos_weight=None, reduction="mean"):
    """Return the binary cross entropy of scores.

    Parameters
    ----------
    x : ndarray
        Scores before the sigmoid, any shape, float32 or float64.
    target : ndarray
        Of x's shape and type, from 0 to 1.
    weight : ndarray, optional
        Factor of each loss; broadcasts to x's shape.
    pos_weight : ndarray, optional
        Factor of the positive part of each loss; broadcasts to x's shape.
    reduction : {"none", "mean", "sum"}
        One loss per element, or their mean or sum. A mean divides by the number of elements, not by the weights.

    Returns
    -------
    ndarray
        Of x's shape with "none", otherwise with no axes; of x's type.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not x's.
    ValueError
        If shapes do not fit each other.

    Notes
    -----
    Follows ``torch.nn.functional.binary_cross_entropy_with_logits``.
    """
    x, target = checks.loss_pair(x, target)
    weight = _ones_if_none(checks.broadcast_to("weight", weight, x), x)
    pos_weight = _ones_if_none(checks.broadcast_to("pos_weight", pos_weight, x), x)
    reduction = checks.reduction(reduction)
    losses = np.empty(x.size, np.float64)
    _logits_kernel(losses, x.reshape(-1), target.reshape(-1), weight.reshape(-1), pos_weight.reshape(-1))
    return reduce(losses, reduction, x.dtype, x.shape)


def binary_cross_entropy_with_logits_backward(dy, x, target, weight=None, pos_weight=None, reduction="mean"):
    """Return the gradient of `binary_cross_entropy_with_logits_forward` with respect to the scores.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss, of its shape.
    x, target, weight, pos_weight, reduction
        As given to `binary_cross_entropy_with_logits_forward`.

    Returns
    -------
    ndarray
        Of x's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy_with_logits_forward`, and if dy has not the shape of the loss.
    """
    x, target = checks.loss_pair(x, target)
    weight = _ones_if_none(checks.broadcast_to("weight", weight, x), x)
    pos_weight = _ones_if_none(checks.broadcast_to("pos_weight", pos_weight, x), x)
    dy = spread(checks.loss_gradient(dy, x, reduction), x.shape, reduction)
    dx = np.empty_like(x)
    _logits_gradient_kernel(
        dx.reshape(-1), dy, x.reshape(-1), target.reshape(-1), weight.reshape(-1), pos_weight.reshape(-1)
    )
    return dx


def _ones_if_none(weight, x):
    """Return the weights, or ones of x's shape."""
    return np.ones_like(x) if weight is None else weight


@jit
def _clamped_log(value):
    """Return the logarithm, at least -100; NaN stays NaN."""
    if value <= 0:
        return -100.0
    logarithm = np.log(value)
    if logarithm < -100:
        return -100.0
    return logarithm


@jit
def _probability_kernel(losses, p, target, weight):
    """One element after the other, in float64."""
    for i in range(len(p)):
        chance, t = np.float64(p[i]), np.float64(target[i])
        losses[i] = -weight[i] * (t * _clamped_log(chance) + (1 - t) * _clamped_log(1 - chance))


@jit
def _probability_gradient_kernel(dp, dy, p, target, weight):
    """One element after the other, in float64."""
    for i in range(len(p)):
        chance, t = np.float64(p[i]), np.float64(target[i])
        denominator = chance * (1 - chance)
        if denominator < 1e-12:
            denominator = np.float64(1e-12)
        dp[i] = dy[i] * weight[i] * (chance - t) / denominator


@jit
def _logits_kernel(losses, x, target, weight, pos_weight):
    """One element after the other, in float64."""
    for i in range(len(x)):
        score, t = np.float64(x[i]), np.float64(target[i])
        positive = 1 + (np.float64(pos_weight[i]) - 1) * t
        log_term = np.log1p(np.exp(-abs(score)))
        if score < 0:
            log_term -= score
        losses[i] = weight[i] * ((1 - t) * score + positive * log_term)


@jit
def _logits_gradient_kernel(dx, dy, x, target, weight, pos_weight):
    """One element after the other, in float64."""
    for i in range(len(x)):
        score, t = np.float64(x[i]), np.float64(target[i])
        positive = 1 + (np.float64(pos_weight[i]) - 1) * t
        small = np.exp(-abs(score))
        if score < 0:
            one_minus_p = 1 / (1 + small)
        else:
            one_minus_p = small / (1 + small)
        dx[i] = dy[i] * weight[i] * ((1 - t) - positive * one_minus_p)
