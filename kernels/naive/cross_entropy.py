"""Cross entropy over classes: minus the logarithm of the probability that the scores give to the true class.

For the scores ``x[k]`` of one sample or pixel, true class t, class weights w (1 if not given), C classes, and a label
smoothing of s, which takes s of the target away from the true class and spreads it evenly over all:

    log_p[k] = x[k] - log(sum over j of exp(x[j]))
    loss     = -(1 - s) * w[t] * log_p[t]  -  s / C * sum over k of w[k] * log_p[k]

A target of ``ignore_index`` gives a loss of 0. A mean divides by the sum of w[t] over what is not ignored.

Gradient. ``d log_p[j] / dx[k] = (1 if j is k, else 0) - p[k]``, so with the target's share of each class
``q[k] = s / C * w[k] + (1 - s) * w[t] where k is t``:

    dx[k] = p[k] * (sum over j of q[j])  -  q[k]

The largest score is taken away before exp, which changes no log_p and keeps exp from overflowing.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit
from kernels.naive.reduction import reduce, spread


def cross_entropy_forward(x, target, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Return the cross entropy of scores over classes.

    Parameters
    ----------
    x : ndarray, shape (N, C) or (N, C, ...)
        Scores of C classes, float32 or float64.
    target : ndarray of int, shape (N,) or (N, ...)
        True class of each sample or pixel: 0 to C - 1, or ``ignore_index``.
    weight : ndarray, shape (C,), optional
        Weight of each class.
    ignore_index : int
        Target that counts for nothing.
    label_smoothing : float
        Share of the target that is spread over all classes, 0 to 1.
    reduction : {"none", "mean", "sum"}
        One loss per sample or pixel, or their weighted mean, or their sum. A mean over nothing is 0.

    Returns
    -------
    ndarray
        Of target's shape with "none", otherwise with no axes; of x's type.

    Raises
    ------
    TypeError
        If an array has a wrong type.
    ValueError
        If shapes do not fit each other, or a target is no class.

    Notes
    -----
    Follows ``torch.nn.functional.cross_entropy``, except that PyTorch's mean over nothing is NaN. Label smoothing:
    Szegedy et al., arXiv:1512.00567.
    """
    shape = np.shape(target)
    x, target, weight, ignore_index, smoothing = checks.cross_entropy(x, target, weight, ignore_index, label_smoothing)
    reduction = checks.reduction(reduction)
    if weight is None:
        weight = np.ones(x.shape[1], x.dtype)
    losses = np.zeros(target.shape, np.float64)
    total_weight = _cross_entropy_kernel(losses, x, target, weight, ignore_index, smoothing)
    return reduce(losses.reshape(-1), reduction, x.dtype, shape, total_weight)


def cross_entropy_backward(dy, x, target, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Return the gradient of `cross_entropy_forward` with respect to the scores.

    Parameters
    ----------
    dy : ndarray or float
        Gradient of the loss, of its shape.
    x, target, weight, ignore_index, label_smoothing, reduction
        As given to `cross_entropy_forward`.

    Returns
    -------
    ndarray
        Of x's shape and type; 0 where the target is ignored.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_forward`, and if dy has not the shape of the loss.
    """
    x_shape, target_shape = np.shape(x), np.shape(target)
    x, target, weight, ignore_index, smoothing = checks.cross_entropy(x, target, weight, ignore_index, label_smoothing)
    dy = checks.loss_gradient(dy, x, reduction, target_shape)
    if weight is None:
        weight = np.ones(x.shape[1], x.dtype)
    total_weight = _total_weight_kernel(target, weight, ignore_index)
    dy = spread(dy, target.shape, reduction, total_weight).reshape(target.shape)
    dx = np.zeros_like(x)
    _cross_entropy_gradient_kernel(dx, dy, x, target, weight, ignore_index, smoothing)
    return dx.reshape(x_shape)


@jit
def _total_weight_kernel(target, weight, ignore_index):
    """Return the sum of the true classes' weights over what is not ignored."""
    total = np.float64(0)
    for n in range(target.shape[0]):
        for i in range(target.shape[1]):
            if target[n, i] != ignore_index:
                total += np.float64(weight[target[n, i]])
    return total


@jit
def _log_sum_exp(x, n, i):
    """Return ``log(sum over k of exp(x[n, k, i]))`` in float64."""
    largest = np.float64(x[n, 0, i])
    for k in range(x.shape[1]):
        if x[n, k, i] > largest:
            largest = np.float64(x[n, k, i])
    total = np.float64(0)
    for k in range(x.shape[1]):
        total += np.exp(np.float64(x[n, k, i]) - largest)
    return largest + np.log(total)


@jit
def _cross_entropy_kernel(losses, x, target, weight, ignore_index, smoothing):
    """One pixel after the other, in float64; returns the sum of the true classes' weights."""
    N, C, pixels = x.shape
    for n in range(N):
        for i in range(pixels):
            t = target[n, i]
            if t != ignore_index:
                log_total = _log_sum_exp(x, n, i)
                losses[n, i] = -(1 - smoothing) * np.float64(weight[t]) * (x[n, t, i] - log_total)
                if smoothing > 0:
                    for k in range(C):
                        losses[n, i] -= smoothing / C * np.float64(weight[k]) * (x[n, k, i] - log_total)
    return _total_weight_kernel(target, weight, ignore_index)


@jit
def _cross_entropy_gradient_kernel(dx, dy, x, target, weight, ignore_index, smoothing):
    """One pixel after the other, in float64."""
    N, C, pixels = x.shape
    sum_weight = np.float64(0)
    for k in range(C):
        sum_weight += np.float64(weight[k])
    for n in range(N):
        for i in range(pixels):
            t = target[n, i]
            if t != ignore_index:
                log_total = _log_sum_exp(x, n, i)
                sum_q = smoothing / C * sum_weight + (1 - smoothing) * np.float64(weight[t])
                for k in range(C):
                    p = np.exp(x[n, k, i] - log_total)
                    q = smoothing / C * np.float64(weight[k])
                    if k == t:
                        q += (1 - smoothing) * np.float64(weight[t])
                    dx[n, k, i] = dy[n, i] * (p * sum_q - q)
