"""Batch normalisation over (planes, pixels), where plane ``n * C + c`` belongs to channel c.

A plane is cut into blocks of pixels. Each task takes the mean and the squared deviations of one block, in float64 and
while the block lies in the cache; the few blocks of a channel are then merged in a fixed order (Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979). A mean of 1000 costs no digits.
"""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import BLOCK, block_bounds, block_count, flat
from kernels.jit import RELAXED, jit

#: NaN or infinite input, or a variance of 0 with eps 0, gives NaN or infinite output, without a warning.
_SILENT = np.errstate(all="ignore")


@_SILENT
def batch_norm_forward(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """Normalise each channel to mean 0 and variance 1, then scale it by ``gamma`` and shift it by ``beta``.

    Parameters
    ----------
    x : ndarray, (N, C, H, W), float32 or float64
        Input.
    gamma, beta : ndarray, (C,), or None
        Scale and shift; None means 1 and 0.
    running_mean, running_var : ndarray, (C,), or None
        Running statistics; both or neither. In training they are updated in place: ``momentum`` parts of the batch's
        mean and unbiased variance, the rest of the old value. Otherwise they normalise.
    training : bool
        Whether the batch's own mean and (biased) variance normalise.
    momentum : float
        Share of the batch in the running statistics.
    eps : float
        Added to the variance.

    Returns
    -------
    y : ndarray, (N, C, H, W)
        Output.
    mean, inv_std : ndarray, (C,)
        What normalised the channels: the mean, and 1 / sqrt(variance + eps). Zeros for a batch of none in training.

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or the types differ.
    ValueError
        If a shape does not fit, running statistics are missing or cannot be written to, or a channel has only one value
        in training.

    Notes
    -----
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    2015. A batch of none leaves the running statistics as they are.
    """
    x, gamma, beta, running_mean, running_var, training, momentum, eps = checks.batch_norm(
        x, gamma, beta, running_mean, running_var, training, momentum, eps
    )
    y = np.empty_like(x)
    if training and not x.size:
        return y, np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    if not training:
        mean, var = running_mean.astype(np.float64), running_var.astype(np.float64)
    else:
        mean, var, count = _batch_statistics(x)
        if running_mean is not None:
            running_mean[...] = (1 - momentum) * running_mean.astype(np.float64) + momentum * mean
            unbiased = var * (count / (count - 1))
            running_var[...] = (1 - momentum) * running_var.astype(np.float64) + momentum * unbiased
    inv_std = 1 / np.sqrt(var + eps)
    scale = inv_std if gamma is None else inv_std * gamma
    centre = mean.astype(x.dtype)
    # x - centre loses nothing where x is near the mean; what centre itself lost is put into the shift
    shift = (centre - mean) * scale + (0 if beta is None else beta)
    if x.size:
        scale, shift = scale.astype(x.dtype), shift.astype(x.dtype)
        _normalise_kernel(y.reshape(-1), flat(x), centre, scale, shift, *_layout(x.shape))
    return y, centre, inv_std.astype(x.dtype)


@_SILENT
def batch_norm_backward(dy, x, gamma, mean, inv_std, training):
    """Return the gradients of a batch normalisation.

    Parameters
    ----------
    dy : ndarray, (N, C, H, W), float32 or float64
        Gradient of the output.
    x : ndarray, (N, C, H, W)
        The input.
    gamma : ndarray, (C,), or None
        The scale; None means 1.
    mean, inv_std : ndarray, (C,)
        What ``batch_norm_forward`` returned.
    training : bool
        Whether mean and variance came from ``x`` itself, so that the gradient also flows through them.

    Returns
    -------
    dx : ndarray, (N, C, H, W)
        Gradient of ``x``.
    dgamma, dbeta : ndarray, (C,)
        Gradients of ``gamma`` and ``beta``.

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or the types differ.
    ValueError
        If a shape does not fit.
    """
    dy, x, gamma, mean, inv_std, training = checks.batch_norm_gradient(dy, x, gamma, mean, inv_std, training)
    dx, mean = np.empty_like(x), flat(mean)
    if not x.size:
        return dx, np.zeros_like(mean), np.zeros_like(mean)
    pixels, blocks, planes = _layout(x.shape)
    sums = np.empty((2, planes * blocks))
    _gradient_sums_kernel(sums[0], sums[1], flat(dy), flat(x), mean, pixels, blocks, planes)
    # per channel: the sum of dy, and that of dy * (x - mean)
    total, dot = sums.reshape(2, x.shape[0], x.shape[1], blocks).sum(axis=(1, 3))
    inv_std = inv_std.astype(np.float64)
    scale = inv_std if gamma is None else inv_std * gamma
    count = x.size / x.shape[1]
    # dx = scale * (dy - total / count - (x - mean) * inv_std**2 * dot / count)
    slope, shift = -scale * inv_std**2 * dot / count, -scale * total / count
    per_channel = (scale.astype(x.dtype), slope.astype(x.dtype), shift.astype(x.dtype))
    _input_gradient_kernel(dx.reshape(-1), flat(dy), flat(x), mean, *per_channel, training, *_layout(x.shape))
    return dx, (dot * inv_std).astype(x.dtype), total.astype(x.dtype)


def _layout(shape):
    """Return the number of pixels of a plane, of blocks of a plane, and of planes."""
    pixels = shape[2] * shape[3]
    return pixels, block_count(pixels), shape[0] * shape[1]


def _batch_statistics(x):
    """Return mean and biased variance of each channel in float64, and how many values each came from."""
    pixels, blocks, planes = _layout(x.shape)
    means, squares = np.empty((2, planes * blocks))
    _block_statistics_kernel(means, squares, flat(x), pixels, blocks, planes)
    means, squares = means.reshape(*x.shape[:2], blocks), squares.reshape(*x.shape[:2], blocks)
    sizes = np.full(blocks, BLOCK)
    sizes[-1] = pixels - (blocks - 1) * BLOCK
    count = x.shape[0] * pixels
    mean = (sizes * means).sum(axis=(0, 2)) / count
    deviations = squares + sizes * (means - mean[:, None]) ** 2
    return mean, deviations.sum(axis=(0, 2)) / count, count


@jit(parallel=True)
def _block_statistics_kernel(means, squares, x, pixels, blocks, planes):
    for job in prange(planes * blocks):
        task = np.int64(job)
        start, stop = block_bounds(task % blocks, pixels)
        first = task // blocks * pixels
        means[task], squares[task] = _block_statistics(x[first + start : first + stop])


@jit(fastmath=RELAXED)
def _block_statistics(x):
    """Return the mean of a block and its sum of squared deviations from it."""
    total = 0.0
    for i in range(x.size):
        total += x[i]
    mean = total / x.size
    squares = 0.0
    for i in range(x.size):
        squares += (x[i] - mean) ** 2
    return mean, squares


@jit(parallel=True)
def _normalise_kernel(y, x, centre, scale, shift, pixels, blocks, planes):
    for job in prange(planes * blocks):
        task = np.int64(job)
        start, stop = block_bounds(task % blocks, pixels)
        plane = task // blocks
        first, c = plane * pixels, plane % centre.size
        _normalise_block(
            y[first + start : first + stop], x[first + start : first + stop], centre[c], scale[c], shift[c]
        )


@jit(fastmath={"contract"})
def _normalise_block(y, x, centre, scale, shift):
    for i in range(x.size):
        y[i] = (x[i] - centre) * scale + shift


@jit(parallel=True)
def _gradient_sums_kernel(total, dot, dy, x, mean, pixels, blocks, planes):
    for job in prange(planes * blocks):
        task = np.int64(job)
        start, stop = block_bounds(task % blocks, pixels)
        plane = task // blocks
        first = plane * pixels
        line = slice(first + start, first + stop)
        total[task], dot[task] = _gradient_sums(dy[line], x[line], mean[plane % mean.size])


@jit(fastmath=RELAXED)
def _gradient_sums(dy, x, mean):
    """Return the sum of dy over a block, and that of dy * (x - mean)."""
    total, dot = 0.0, 0.0
    for i in range(x.size):
        total += dy[i]
        dot += np.float64(dy[i]) * np.float64(x[i] - mean)
    return total, dot


@jit(parallel=True)
def _input_gradient_kernel(dx, dy, x, mean, scale, slope, shift, training, pixels, blocks, planes):
    for job in prange(planes * blocks):
        task = np.int64(job)
        start, stop = block_bounds(task % blocks, pixels)
        plane = task // blocks
        first, c = plane * pixels, plane % mean.size
        line = slice(first + start, first + stop)
        if training:
            _input_gradient_block(dx[line], dy[line], x[line], mean[c], scale[c], slope[c], shift[c])
        else:
            _scale_block(dx[line], dy[line], scale[c])


@jit(fastmath={"contract"})
def _input_gradient_block(dx, dy, x, mean, scale, slope, shift):
    for i in range(x.size):
        dx[i] = dy[i] * scale + ((x[i] - mean) * slope + shift)


@jit
def _scale_block(dx, dy, scale):
    for i in range(dy.size):
        dx[i] = dy[i] * scale
