"""Focal loss: binary cross entropy that counts what is easy for less (Lin et al., arXiv:1708.02002).

With ``p = 1 / (1 + exp(-x))`` and target t, ``p_t`` is the probability given to what is true:

    entropy = -(t * log(p) + (1 - t) * log(1 - p))                    binary cross entropy
    p_t     = p * t + (1 - p) * (1 - t)
    alpha_t = alpha * t + (1 - alpha) * (1 - t)                       1 if alpha is negative
    loss    = alpha_t * (1 - p_t)^gamma * entropy

Gradient, by the product rule, with ``d entropy / dx = p - t`` and ``d p_t / dx = (2 t - 1) * p * (1 - p)``:

    dx = alpha_t * ((1 - p_t)^gamma * (p - t)  -  gamma * (1 - p_t)^(gamma - 1) * (2 t - 1) * p * (1 - p) * entropy)
"""

import numpy as np

from kernels import checks
from kernels.jit import jit
from kernels.naive.reduction import reduce, spread


def sigmoid_focal_forward(x, target, alpha=0.25, gamma=2.0, reduction="none"):
    """Return the focal loss of scores.

    Parameters
    ----------
    x : ndarray
        Scores before the sigmoid, any shape, float32 or float64.
    target : ndarray
        Of x's shape and type, from 0 to 1.
    alpha : float
        Weight of positives against negatives, up to 1; a negative number weighs nothing.
    gamma : float
        How fast what is easy fades; 0 is plain binary cross entropy.
    reduction : {"none", "mean", "sum"}
        One loss per element, or their mean or sum.

    Returns
    -------
    ndarray
        Of x's shape with "none", otherwise with no axes; of x's type.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or target not x's.
    ValueError
        If the shapes differ, alpha is above 1, or gamma negative.

    Notes
    -----
    Follows ``torchvision.ops.sigmoid_focal_loss``.
    """
    x, target = checks.loss_pair(x, target)
    alpha, gamma = checks.number("alpha", alpha, None, 1), checks.number("gamma", gamma, 0)
    reduction = checks.reduction(reduction)
    losses = np.empty(x.size, np.float64)
    _focal_kernel(losses, x.reshape(-1), target.reshape(-1), alpha, gamma)
    return reduce(losses, reduction, x.dtype, x.shape)


def sigmoid_focal_backward(dy, x, target, alpha=0.25, gamma=2.0, reduction="none"):
    """Return the gradient of `sigmoid_focal_forward` with respect to the scores.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss, of its shape.
    x, target, alpha, gamma, reduction
        As given to `sigmoid_focal_forward`.

    Returns
    -------
    ndarray
        Of x's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid_focal_forward`, and if dy has not the shape of the loss.
    """
    x, target = checks.loss_pair(x, target)
    alpha, gamma = checks.number("alpha", alpha, None, 1), checks.number("gamma", gamma, 0)
    dy = spread(checks.loss_gradient(dy, x, reduction), x.shape, reduction)
    dx = np.empty_like(x)
    _focal_gradient_kernel(dx.reshape(-1), dy, x.reshape(-1), target.reshape(-1), alpha, gamma)
    return dx


@jit
def _parts(score, t, alpha):
    """Return p, 1 - p, 1 - p_t, the cross entropy and alpha_t, without overflow, for scores and targets in float64."""
    small = np.exp(-abs(score))
    p, one_minus_p = 1 / (1 + small), small / (1 + small)
    entropy = (1 - t) * score + np.log1p(small)
    if score < 0:
        p, one_minus_p = one_minus_p, p
        entropy -= score
    one_minus_p_t = one_minus_p * t + p * (1 - t)
    alpha_t = np.float64(1)
    if alpha >= 0:
        alpha_t = alpha * t + (1 - alpha) * (1 - t)
    return p, one_minus_p, one_minus_p_t, entropy, alpha_t


@jit
def _focal_kernel(losses, x, target, alpha, gamma):
    """One element after the other, in float64."""
    for i in range(len(x)):
        _, _, one_minus_p_t, entropy, alpha_t = _parts(np.float64(x[i]), np.float64(target[i]), alpha)
        losses[i] = alpha_t * one_minus_p_t**gamma * entropy


@jit
def _focal_gradient_kernel(dx, dy, x, target, alpha, gamma):
    """One element after the other, in float64."""
    for i in range(len(x)):
        t = np.float64(target[i])
        p, one_minus_p, one_minus_p_t, entropy, alpha_t = _parts(np.float64(x[i]), t, alpha)
        slope = one_minus_p_t**gamma * (p - t)
        if gamma > 0 and one_minus_p_t != 0:  # else the term vanishes, but 0 to a negative power would be infinite
            slope -= gamma * one_minus_p_t ** (gamma - 1) * (2 * t - 1) * p * one_minus_p * entropy
        dx[i] = dy[i] * alpha_t * slope
