"""Dice loss: one minus the overlap of the predicted and the true area (Milletari et al., arXiv:1606.04797).

With ``p = 1 / (1 + exp(-x))`` and target t, sums over all elements of the batch, or of one sample of it:

    overlap = 2 * sum of p * t + smooth
    areas   = sum of p + sum of t + smooth
    loss    = 1 - overlap / areas

Gradient, by the quotient rule and ``dp/dx = p * (1 - p)``:

    dx = -(2 * t * areas - overlap) / areas^2 * p * (1 - p)

``smooth`` keeps the quotient sensible where both areas are empty. A sample without elements has loss 0.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit
from kernels.naive.reduction import reduce, spread


def dice_forward(x, target, smooth=1.0, per_sample=False, reduction="mean"):
    """Return the Dice loss of scores.

    Parameters
    ----------
    x : ndarray
        Scores before the sigmoid, any shape, float32 or float64.
    target : ndarray
        Of x's shape and type, from 0 to 1.
    smooth : float
        Added to overlap and areas; 0 or more.
    per_sample : bool
        Whether each sample (first axis) has a loss of its own. Otherwise there is one loss, over all of x.
    reduction : {"none", "mean", "sum"}
        What to make of the samples' losses.

    Returns
    -------
    ndarray
        Of shape (N,) with "none" and ``per_sample``, otherwise with no axes; of x's type.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or target not x's.
    ValueError
        If the shapes differ, or smooth is negative.
    """
    x, target = checks.loss_pair(x, target)
    smooth, reduction = checks.number("smooth", smooth, 0), checks.reduction(reduction)
    samples = _number_of_samples(x, per_sample)
    losses = np.zeros(samples, np.float64)
    if x.size:
        _dice_kernel(losses, x.reshape(samples, -1), target.reshape(samples, -1), smooth)
    return reduce(losses, reduction, x.dtype, (samples,) if per_sample else ())


def dice_backward(dy, x, target, smooth=1.0, per_sample=False, reduction="mean"):
    """Return the gradient of `dice_forward` with respect to the scores.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss, of its shape.
    x, target, smooth, per_sample, reduction
        As given to `dice_forward`.

    Returns
    -------
    ndarray
        Of x's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `dice_forward`, and if dy has not the shape of the loss.
    """
    x, target = checks.loss_pair(x, target)
    smooth = checks.number("smooth", smooth, 0)
    samples = _number_of_samples(x, per_sample)
    loss_shape = (samples,) if per_sample else ()
    dy = spread(checks.loss_gradient(dy, x, reduction, loss_shape), loss_shape, reduction)
    dx = np.zeros_like(x)
    if x.size:
        _dice_gradient_kernel(dx.reshape(samples, -1), dy, x.reshape(samples, -1), target.reshape(samples, -1), smooth)
    return dx


def _number_of_samples(x, per_sample):
    """Return how many losses there are before reduction."""
    return x.shape[0] if per_sample and x.ndim else 1


@jit
def _sigmoid(score):
    """Return the sigmoid of a score in float64, without overflow."""
    small = np.exp(-abs(score))
    if score < 0:
        return small / (1 + small)
    return 1 / (1 + small)


@jit
def _overlap_and_areas(x, target, n, smooth):
    """Return ``overlap, areas`` of one sample."""
    overlap, areas = np.float64(smooth), np.float64(smooth)
    for i in range(x.shape[1]):
        p, t = _sigmoid(np.float64(x[n, i])), np.float64(target[n, i])
        overlap += 2 * p * t
        areas += p + t
    return overlap, areas


@jit
def _dice_kernel(losses, x, target, smooth):
    """One sample after the other, in float64."""
    for n in range(x.shape[0]):
        overlap, areas = _overlap_and_areas(x, target, n, smooth)
        losses[n] = 1 - overlap / areas


@jit
def _dice_gradient_kernel(dx, dy, x, target, smooth):
    """One sample after the other, in float64."""
    for n in range(x.shape[0]):
        overlap, areas = _overlap_and_areas(x, target, n, smooth)
        for i in range(x.shape[1]):
            p, t = _sigmoid(np.float64(x[n, i])), np.float64(target[n, i])
            dx[n, i] = dy[n] * -(2 * t * areas - overlap) / areas**2 * p * (1 - p)
