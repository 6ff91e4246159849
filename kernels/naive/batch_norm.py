"""Batch normalisation over pictures and pixels, channel by channel (Ioffe and Szegedy, arXiv:1502.03167).

In training, with M = N * H * W values in each channel:

    mean[c]     = sum of x[n, c, y, x] / M
    variance[c] = sum of (x[n, c, y, x] - mean[c])^2 / M                  (biased: divided by M)
    inv_std[c]  = 1 / sqrt(variance[c] + eps)
    normal      = (x - mean[c]) * inv_std[c]
    y           = gamma[c] * normal + beta[c]

    running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean[c]
    running_var[c]  = (1 - momentum) * running_var[c] + momentum * variance[c] * M / (M - 1)      (unbiased)

In evaluation, mean and variance are the running ones, and constants.

Gradients. y depends on gamma and beta directly, so each collects over its channel:

    dbeta[c]  = sum of dy
    dgamma[c] = sum of dy * normal

and in evaluation ``dx = gamma * inv_std * dy``. In training x acts in three ways: directly, through the mean, and
through the variance. Written out, the last two take away from dy its own mean and its part along ``normal``:

    dx = gamma * inv_std * (dy - dbeta / M - normal * dgamma / M)

Sums run in float64: thousands of float32 values near 1000 would lose the digits that make their variance.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def batch_norm_forward(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """Normalise each channel to mean 0 and variance 1, then scale by gamma and shift by beta.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
        Pictures, float32 or float64.
    gamma, beta : ndarray, shape (C,), or None
        Scale and shift of each channel, of x's type; None means 1 and 0.
    running_mean, running_var : ndarray, shape (C,), or None
        Averages over the batches seen so far. Updated in place in training, where both may be None; used in evaluation.
    training : bool
        Whether the batch's own statistics normalise it, and update the running ones.
    momentum : float
        Share of this batch in the running statistics.
    eps : float
        Added to the variance.

    Returns
    -------
    y : ndarray, shape (N, C, H, W)
        The normalised pictures.
    mean, inv_std : ndarray, shape (C,)
        What normalised them, for `batch_norm_backward`; zeros for an empty batch in training, which has no statistics.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not x's.
    ValueError
        If shapes do not fit each other, if training has one value per channel, if evaluation has no running statistics,
        or if in training these cannot be written to.

    Notes
    -----
    Follows ``torch.nn.functional.batch_norm``.
    """
    x, gamma, beta, running_mean, running_var, training, momentum, eps = checks.batch_norm(
        x, gamma, beta, running_mean, running_var, training, momentum, eps
    )
    channels = x.shape[1]
    if gamma is None:
        gamma = np.ones(channels, x.dtype)
    if beta is None:
        beta = np.zeros(channels, x.dtype)
    y = np.empty_like(x)
    if not training:
        mean = running_mean.copy()
        inv_std = np.empty(channels, x.dtype)
        _inv_std_kernel(inv_std, running_var, eps)
    else:
        mean, inv_std = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
        if x.size:
            if running_mean is None:  # nobody keeps them
                running_mean, running_var = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
            _statistics_kernel(mean, inv_std, running_mean, running_var, x, momentum, eps)
    _normalise_kernel(y, x, gamma, beta, mean, inv_std)
    return y, mean, inv_std


def batch_norm_backward(dy, x, gamma, mean, inv_std, training):
    """Return the gradients of a batch normalisation.

    Parameters
    ----------
    dy : ndarray, shape (N, C, H, W)
        Gradient of the output.
    x, gamma, training
        As given to `batch_norm_forward`.
    mean, inv_std : ndarray, shape (C,)
        As returned by it.

    Returns
    -------
    dx : ndarray, shape (N, C, H, W)
        Gradient of x.
    dgamma, dbeta : ndarray, shape (C,)
        Gradients of scale and shift, also where gamma is None (as if it were 1).

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other.
    """
    dy, x, gamma, mean, inv_std, training = checks.batch_norm_gradient(dy, x, gamma, mean, inv_std, training)
    channels = x.shape[1]
    if gamma is None:
        gamma = np.ones(channels, x.dtype)
    dx = np.empty_like(x)
    dgamma, dbeta = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
    _batch_norm_gradient_kernel(dx, dgamma, dbeta, dy, x, gamma, mean, inv_std, training)
    return dx, dgamma, dbeta


@jit
def _statistics_kernel(mean, inv_std, running_mean, running_var, x, momentum, eps):
    """Mean and biased variance of each channel; the running statistics move towards them."""
    N, C, H, W = x.shape
    count = np.float64(N * H * W)
    for c in range(C):
        total = np.float64(0)
        for n in range(N):
            for iy in range(H):
                for ix in range(W):
                    total += np.float64(x[n, c, iy, ix])
        average = total / count

        total = np.float64(0)
        for n in range(N):
            for iy in range(H):
                for ix in range(W):
                    total += (np.float64(x[n, c, iy, ix]) - average) ** 2
        variance = total / count

        mean[c] = average
        inv_std[c] = 1 / np.sqrt(variance + eps)
        unbiased = total / (count - 1)
        running_mean[c] = (1 - momentum) * np.float64(running_mean[c]) + momentum * average
        running_var[c] = (1 - momentum) * np.float64(running_var[c]) + momentum * unbiased


@jit
def _inv_std_kernel(inv_std, variance, eps):
    """One over the standard deviation of each channel."""
    for c in range(len(inv_std)):
        inv_std[c] = 1 / np.sqrt(np.float64(variance[c]) + eps)


@jit
def _normalise_kernel(y, x, gamma, beta, mean, inv_std):
    """Subtract the mean, divide by the standard deviation, scale and shift."""
    N, C, H, W = x.shape
    for n in range(N):
        for c in range(C):
            for iy in range(H):
                for ix in range(W):
                    normal = (x[n, c, iy, ix] - mean[c]) * inv_std[c]
                    y[n, c, iy, ix] = gamma[c] * normal + beta[c]


@jit
def _batch_norm_gradient_kernel(dx, dgamma, dbeta, dy, x, gamma, mean, inv_std, training):
    """Two sums over each channel, then the formula for dx."""
    N, C, H, W = x.shape
    count = np.float64(N * H * W)
    for c in range(C):
        sum_dy = np.float64(0)
        sum_dy_normal = np.float64(0)
        for n in range(N):
            for iy in range(H):
                for ix in range(W):
                    normal = (np.float64(x[n, c, iy, ix]) - mean[c]) * inv_std[c]
                    sum_dy += np.float64(dy[n, c, iy, ix])
                    sum_dy_normal += dy[n, c, iy, ix] * normal
        dbeta[c] = sum_dy
        dgamma[c] = sum_dy_normal

        for n in range(N):
            for iy in range(H):
                for ix in range(W):
                    own = np.float64(dy[n, c, iy, ix])
                    if training:
                        normal = (np.float64(x[n, c, iy, ix]) - mean[c]) * inv_std[c]
                        own = own - sum_dy / count - normal * sum_dy_normal / count
                    dx[n, c, iy, ix] = gamma[c] * inv_std[c] * own
