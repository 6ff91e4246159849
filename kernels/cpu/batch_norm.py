"""Batch normalisation over (planes, pixels), where plane ``n * C + c`` belongs to channel c.

A plane is cut into blocks of pixels. Each task takes the mean and the squared deviations of one block, in float64 and
while the block lies in the cache; the few blocks of a channel are then merged in a fixed order (Chan, Golub and
LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979). A mean of 1000 costs no
digits.
"""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import BLOCK, block_count, flat, row_and_slice
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
    lost = np.where(np.isfinite(centre), centre - mean, 0)
    shift = lost * scale + (0 if beta is None else beta)
    if x.size:
        constants = np.stack((centre, scale, shift), axis=1, dtype=x.dtype, casting="same_kind")
        _normalise_kernel(y.reshape(-1), flat(x), constants, *_layout(x.shape))
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
    dx = np.empty_like(x)
    if not x.size:
        return dx, np.zeros_like(mean), np.zeros_like(mean)
    pixels, blocks, tasks = _layout(x.shape)
    sums = np.empty((2, tasks))
    _gradient_sums_kernel(sums[0], sums[1], flat(dy), flat(x), flat(mean), pixels, blocks)
    # per channel: the sum of dy, and that of dy * (x - mean)
    total, dot = sums.reshape(2, x.shape[0], x.shape[1], blocks).sum(axis=(1, 3))
    inv_std = inv_std.astype(np.float64)
    scale = inv_std if gamma is None else inv_std * gamma
    count = x.size / x.shape[1]
    # dx = scale * (dy - total / count - (x - mean) * inv_std**2 * dot / count)
    slope, shift = -scale * inv_std**2 * dot / count, -scale * total / count
    constants = np.stack((mean, scale, slope, shift), axis=1, dtype=x.dtype, casting="same_kind")
    _input_gradient_kernel(dx.reshape(-1), flat(dy), flat(x), constants, training, pixels, blocks, tasks)
    return dx, (dot * inv_std).astype(x.dtype), total.astype(x.dtype)


def _layout(shape):
    """Return the number of pixels of a plane, of blocks of a plane, and of blocks in all."""
    pixels = shape[2] * shape[3]
    return pixels, block_count(pixels), shape[0] * shape[1] * block_count(pixels)


def _batch_statistics(x):
    """Return mean and biased variance of each channel in float64, and how many values each came from."""
    pixels, blocks, tasks = _layout(x.shape)
    means, squares = np.empty((2, tasks))
    _block_statistics_kernel(means, squares, flat(x), pixels, blocks)
    means, squares = means.reshape(*x.shape[:2], blocks), squares.reshape(*x.shape[:2], blocks)
    sizes = np.full(blocks, BLOCK)
    sizes[-1] = pixels - (blocks - 1) * BLOCK
    count = x.shape[0] * pixels
    mean = (sizes * means).sum(axis=(0, 2)) / count
    deviations = squares + sizes * (means - mean[:, None]) ** 2
    return mean, deviations.sum(axis=(0, 2)) / count, count


@jit(parallel=True)
def _block_statistics_kernel(means, squares, x, pixels, blocks):
    for task in prange(means.size):
        _block_statistics(np.int64(task), means, squares, x, pixels, blocks)


@jit(fastmath=RELAXED)
def _block_statistics(task, means, squares, x, pixels, blocks):
    """Take the mean of a block and its sum of squared deviations from it."""
    x = x[row_and_slice(task, pixels, blocks)[1]]
    total = 0.0
    for i in range(x.size):
        total += x[i]
    mean = total / x.size
    deviations = 0.0
    for i in range(x.size):
        deviations += (x[i] - mean) ** 2
    means[task], squares[task] = mean, deviations


@jit(parallel=True)
def _normalise_kernel(y, x, constants, pixels, blocks, tasks):
    for task in prange(tasks):
        _normalise_block(np.int64(task), y, x, constants, pixels, blocks)


@jit(fastmath={"contract"})
def _normalise_block(task, y, x, constants, pixels, blocks):
    plane, part = row_and_slice(task, pixels, blocks)
    centre, scale, shift = constants[plane % constants.shape[0]]
    y, x = y[part], x[part]
    for i in range(x.size):
        y[i] = (x[i] - centre) * scale + shift


@jit(parallel=True)
def _gradient_sums_kernel(total, dot, dy, x, mean, pixels, blocks):
    for task in prange(total.size):
        _gradient_sums(np.int64(task), total, dot, dy, x, mean, pixels, blocks)


@jit(fastmath=RELAXED)
def _gradient_sums(task, total, dot, dy, x, mean, pixels, blocks):
    """Take the sum of dy over a block, and that of dy * (x - mean)."""
    plane, part = row_and_slice(task, pixels, blocks)
    dy, x, centre = dy[part], x[part], mean[plane % mean.size]
    of_dy, of_product = 0.0, 0.0
    for i in range(x.size):
        of_dy += dy[i]
        of_product += np.float64(dy[i]) * np.float64(x[i] - centre)
    total[task], dot[task] = of_dy, of_product


@jit(parallel=True)
def _input_gradient_kernel(dx, dy, x, constants, training, pixels, blocks, tasks):
    for task in prange(tasks):
        _input_gradient_block(np.int64(task), dx, dy, x, constants, training, pixels, blocks)


@jit(fastmath={"contract"})
def _input_gradient_block(task, dx, dy, x, constants, training, pixels, blocks):
    plane, part = row_and_slice(task, pixels, blocks)
    centre, scale, slope, shift = constants[plane % constants.shape[0]]
    dx, dy, x = dx[part], dy[part], x[part]
    if training:
        for i in range(x.size):
            dx[i] = dy[i] * scale + ((x[i] - centre) * slope + shift)
    else:
        for i in range(x.size):
            dx[i] = dy[i] * scale
