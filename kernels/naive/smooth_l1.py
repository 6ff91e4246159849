"""Smooth L1 loss (Huber's, divided by beta): a parabola near 0 and a straight line beyond (Girshick, arXiv:1504.08083).

With the difference ``d = x - target``:

    loss = d^2 / (2 * beta)     where |d| < beta            d loss / dx = d / beta
    loss = |d| - beta / 2       elsewhere                   d loss / dx = 1 or -1, the sign of d

With beta 0 it is the plain absolute difference, whose gradient at 0 counts as 0.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit
from kernels.naive.reduction import reduce, spread


def smooth_l1_forward(x, target, beta=1.0, reduction="mean"):
    """Return the smooth L1 loss.

    Parameters
    ----------
    x, target : ndarray
        Any shape, float32 or float64; target of x's shape and type.
    beta : float
        Difference at which the parabola meets the line; 0 or more.
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
        If the shapes differ, or beta is negative.

    Notes
    -----
    Follows ``torch.nn.functional.smooth_l1_loss``.
    """
    x, target = checks.loss_pair(x, target)
    beta, reduction = checks.number("beta", beta, 0), checks.reduction(reduction)
    losses = np.empty(x.size, np.float64)
    _smooth_l1_kernel(losses, x.reshape(-1), target.reshape(-1), beta)
    return reduce(losses, reduction, x.dtype, x.shape)


def smooth_l1_backward(dy, x, target, beta=1.0, reduction="mean"):
    """Return the gradient of `smooth_l1_forward` with respect to x.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss, of its shape.
    x, target, beta, reduction
        As given to `smooth_l1_forward`.

    Returns
    -------
    ndarray
        Of x's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `smooth_l1_forward`, and if dy has not the shape of the loss.
    """
    x, target = checks.loss_pair(x, target)
    beta = checks.number("beta", beta, 0)
    dy = spread(checks.loss_gradient(dy, x, reduction), x.shape, reduction)
    dx = np.empty_like(x)
    _smooth_l1_gradient_kernel(dx.reshape(-1), dy, x.reshape(-1), target.reshape(-1), beta)
    return dx


@jit
def _smooth_l1_kernel(losses, x, target, beta):
    """One element after the other, in float64."""
    for i in range(len(x)):
        d = np.float64(x[i]) - np.float64(target[i])
        if abs(d) < beta:
            losses[i] = d * d / (2 * beta)
        else:
            losses[i] = abs(d) - beta / 2


@jit
def _smooth_l1_gradient_kernel(dx, dy, x, target, beta):
    """One element after the other, in float64."""
    for i in range(len(x)):
        d = np.float64(x[i]) - np.float64(target[i])
        if abs(d) < beta:
            slope = d / beta
        elif d > 0:
            slope = np.float64(1)
        elif d < 0:
            slope = np.float64(-1)
        else:
            slope = d  # 0, or NaN
        dx[i] = dy[i] * slope
