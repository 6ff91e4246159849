"""Batch normalisation, alone or with a residual and a ReLU behind it: one task is one channel.

A task goes through its channel twice, plane after plane and in runs of neighbouring pixels: for the sums, then for the
results. Where the channel fits into the core's cache, memory is read once.

Sums of a run are taken in the array's own type, as many lanes at once as a register holds, and relative to the run's
own mean: a mean of 1000 costs no digits. The sums of the runs are added up in float64, in order. Runs whose squares
float32 cannot hold are summed in float64.
"""

import math

import numpy as np

from kernels.cpu.memory import empty_like
from kernels.cpu.tasks import run
from kernels.jit import RELAXED, jit

#: Pixels in a run: it stays in the first-level cache, and few enough numbers meet in a lane for float32.
_RUN = 1024

#: What the table holds of each channel.
_GAMMA, _BETA, _EPS, _MEAN, _VAR, _INV_STD, _DGAMMA, _DBETA, _COLUMNS = range(9)

#: NaN or infinite input, or a variance of 0 with eps 0, gives NaN or infinite output, without a warning.
_SILENT = np.errstate(all="ignore")


@_SILENT
def normalise(checked, residual, relu):
    """Normalise with ``checked`` arguments; add ``residual``, if there is one; with ``relu``, make negative results 0.

    Returns
    -------
    y : ndarray, (N, C, H, W)
        Output.
    table : ndarray, (C, columns)
        What normalised each channel, for `gradients`.
    """
    x, gamma, beta, running_mean, running_var, training, momentum, eps = checked
    pictures, channels, height, width = x.shape
    y, table = empty_like(x), np.zeros((channels, _COLUMNS))
    if training and not x.size:
        return y, table
    table[:, _GAMMA] = 1 if gamma is None else gamma
    table[:, _BETA] = 0 if beta is None else beta
    if not training:
        table[:, _MEAN], table[:, _VAR] = running_mean, running_var
    table[:, _EPS] = eps
    run(_forward_channel, channels, (pictures, channels, height * width, training, relu), y, x, residual, table=table)
    if training and running_mean is not None:
        count = x.size // channels
        running_mean[...] = (1 - momentum) * running_mean.astype(np.float64) + momentum * table[:, _MEAN]
        unbiased = table[:, _VAR] * (count / (count - 1))
        running_var[...] = (1 - momentum) * running_var.astype(np.float64) + momentum * unbiased
    return y, table


@_SILENT
def plain_statistics(table, dtype):
    """Return ``mean, inv_std`` of a table."""
    return table[:, _MEAN].astype(dtype), table[:, _INV_STD].astype(dtype)


def plain_table(gamma, mean, inv_std):
    """Return a table for the gradients of a normalisation without a ReLU."""
    table = np.zeros((mean.size, _COLUMNS))
    table[:, _GAMMA] = 1 if gamma is None else gamma
    table[:, _MEAN], table[:, _INV_STD] = mean, inv_std
    return table


@_SILENT
def gradients(dy, x, table, training, relu, y=None, affine=True):
    """Return the gradients of `normalise`; ``y`` is given where a residual was added before the ReLU.

    Parameters
    ----------
    affine : bool
        Whether the gradients of scale and shift are wanted. Without them, fixed statistics take one pass only.

    Returns
    -------
    dx : ndarray, (N, C, H, W)
        Gradient of x.
    dgamma, dbeta : ndarray, (C,), or None
        Gradients of scale and shift, if wanted.
    dresidual : ndarray, (N, C, H, W), or None
        Gradient of the residual.
    """
    pictures, channels, height, width = x.shape
    dx, dresidual = empty_like(x), None if y is None else empty_like(x)
    table[:, _DGAMMA:] = 0
    if x.size:
        sizes = pictures, channels, height * width, training, relu, training or affine
        run(_backward_channel, channels, sizes, dx, dy, x, y, more=dresidual, table=table)
    if not affine:
        return dx, None, None, dresidual
    return dx, table[:, _DGAMMA].astype(x.dtype), table[:, _DBETA].astype(x.dtype), dresidual


# ---- forward ---------------------------------------------------------------------------------------------------------


@jit(fastmath=RELAXED)
def _forward_channel(arrays, sizes, channel):
    """Take the statistics of one channel, unless they are given, and normalise it."""
    pictures, channels, pixels, training, relu = sizes[:5]
    y, x, residual, constants = arrays.out, arrays.a, arrays.b, arrays.table[channel]
    if training:
        _channel_statistics(constants, x, pictures, channels, pixels, channel)
    constants[_INV_STD] = 1 / math.sqrt(constants[_VAR] + constants[_EPS])
    forward, low = _forward_constants(constants, x.dtype.type), x.dtype.type(0 if relu else -np.inf)
    for n in range(pictures):
        start = (n * channels + channel) * pixels
        part = slice(start, start + pixels)
        _normalise(y[part], x[part], residual[part], forward, low)


@jit
def _forward_constants(constants, kind):
    """Return centre, scale and shift of a channel: ``y = (x - centre) * scale + shift``."""
    centre, scale = kind(constants[_MEAN]), constants[_GAMMA] * constants[_INV_STD]
    # x - centre loses nothing where x is near the mean; what centre itself lost is put into the shift
    lost = centre - constants[_MEAN] if math.isfinite(centre) else 0.0
    return centre, kind(scale), kind(lost * scale + constants[_BETA])


@jit(fastmath={"contract"})
def _normalise(y, x, residual, forward, low):
    """Normalise one plane: no result is below ``low``."""
    centre, scale, shift = forward
    for i in range(x.size):
        value = (x[i] - centre) * scale + shift
        if residual.size:
            value = value + residual[i]
        y[i] = low if value <= low else value


@jit(inline="always")
def _channel_statistics(constants, x, pictures, channels, pixels, channel):
    """Put the mean and the biased variance of a channel where they belong.

    The variance is that of the runs themselves and that of their means, which are taken relative to the first one.
    """
    total, squares, apart, first = 0.0, 0.0, 0.0, 0.0
    for n in range(pictures):
        start = (n * channels + channel) * pixels
        for at in range(start, start + pixels, _RUN):
            values = x[at : min(at + _RUN, start + pixels)]
            mean, deviations = _run_statistics(values)
            if n == 0 and at == start:
                first = mean
            total += mean * values.size
            squares += deviations
            apart += (mean - first) * (mean - first) * values.size
    count = pictures * pixels
    constants[_MEAN] = total / count
    variance = (squares + apart) / count - (constants[_MEAN] - first) * (constants[_MEAN] - first)
    constants[_VAR] = 0.0 if variance < 0 else variance


@jit(inline="always")
def _run_statistics(x):
    """Return the mean of a run and its sum of squared deviations from it."""
    zero = x.dtype.type(0)
    total = zero
    for i in range(x.size):
        total += x[i]
    near = total / x.dtype.type(x.size)  # up to rounding, which what follows takes back
    off, squares = zero, zero
    for i in range(x.size):
        d = x[i] - near
        off += d
        squares += d * d
    if 1e-30 < squares < 1e30:
        return np.float64(near) + np.float64(off) / x.size, squares - np.float64(off) * np.float64(off) / x.size
    wide = 0.0
    for i in range(x.size):
        wide += x[i]
    mean, deviations = wide / x.size, 0.0
    for i in range(x.size):
        deviations += (x[i] - mean) * (x[i] - mean)
    return mean, deviations


# ---- backward --------------------------------------------------------------------------------------------------------


@jit(fastmath=RELAXED)
def _backward_channel(arrays, sizes, channel):
    """Take both sums over one channel, if they are wanted, then the gradient of its input."""
    pictures, channels, pixels, training, relu, with_sums = sizes[:6]
    dx, dy, x, y, constants = arrays.out, arrays.a, arrays.b, arrays.c, arrays.table[channel]
    kind, forward = x.dtype.type, _forward_constants(constants, x.dtype.type)
    if with_sums:
        _channel_sums(constants, arrays, pictures, channels, pixels, relu, channel, forward)
    # dx = scale * (dy - total / count - (x - mean) * inv_std**2 * dot / count)
    inv_std, count = np.float64(kind(constants[_INV_STD])), pictures * pixels
    scale = constants[_GAMMA] * inv_std
    slope, shift = -scale * inv_std * constants[_DGAMMA] / count, -scale * constants[_DBETA] / count
    backward = kind(scale), kind(slope), kind(shift)
    source = arrays.more if y.size else dy
    for n in range(pictures):
        start = (n * channels + channel) * pixels
        part = slice(start, start + pixels)
        if y.size and not with_sums:
            _mask(arrays.more[part], dy[part], y[part])
        _input_gradient(dx[part], source[part], x[part], forward, backward, training, relu and not y.size)


@jit(inline="always")
def _channel_sums(constants, arrays, pictures, channels, pixels, relu, channel, forward):
    """Put the gradients of scale and shift where they belong, and that behind a residual's ReLU into ``more``."""
    dy, x, y = arrays.a, arrays.b, arrays.c
    behind = np.empty(min(_RUN, pixels), x.dtype)  # the gradient behind the ReLU, of one run
    total, dot = 0.0, 0.0
    for n in range(pictures):
        start = (n * channels + channel) * pixels
        for at in range(start, start + pixels, _RUN):
            part = slice(at, min(at + _RUN, start + pixels))
            gradient = dy[part]
            if y.size:
                _mask(arrays.more[part], gradient, y[part])
                gradient = arrays.more[part]
            elif relu:
                _mask_again(behind[: gradient.size], gradient, x[part], forward)
                gradient = behind[: gradient.size]
            of_gradient, of_product = _run_sums(gradient, x[part], forward[0])
            total += of_gradient
            dot += of_product
    constants[_DBETA], constants[_DGAMMA] = total, dot * np.float64(x.dtype.type(constants[_INV_STD]))


@jit
def _mask(gradient, dy, y):
    """Take the gradient through the ReLU: where y is NaN, it passes."""
    zero = y.dtype.type(0)
    for i in range(y.size):
        gradient[i] = zero if y[i] <= zero else dy[i]


@jit(fastmath={"contract"})
def _mask_again(gradient, dy, x, forward):
    """Take the gradient through the ReLU, computing y anew: reading it would take longer."""
    centre, scale, shift = forward
    zero = x.dtype.type(0)
    for i in range(x.size):
        gradient[i] = zero if (x[i] - centre) * scale + shift <= zero else dy[i]


@jit(inline="always")
def _run_sums(dy, x, centre):
    """Return the sum of dy over a run, and that of dy * (x - centre)."""
    of_dy, of_product = x.dtype.type(0), x.dtype.type(0)
    for i in range(x.size):
        of_dy += dy[i]
        of_product += dy[i] * (x[i] - centre)
    if abs(of_dy) < 1e30 and abs(of_product) < 1e30:
        return np.float64(of_dy), np.float64(of_product)
    wide_dy, wide_product = 0.0, 0.0
    for i in range(x.size):
        wide_dy += dy[i]
        wide_product += np.float64(dy[i]) * np.float64(x[i] - centre)
    return wide_dy, wide_product


@jit(fastmath={"contract"})
def _input_gradient(dx, dy, x, forward, backward, training, relu):
    centre, forward_scale, forward_shift = forward
    scale, slope, shift = backward
    zero = x.dtype.type(0)
    for i in range(x.size):
        d, gradient = x[i] - centre, dy[i]
        if relu:
            gradient = zero if d * forward_scale + forward_shift <= zero else gradient
        if training:
            dx[i] = gradient * scale + (d * slope + shift)
        else:
            dx[i] = gradient * scale
