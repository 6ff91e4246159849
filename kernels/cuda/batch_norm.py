"""Batch normalisation: sums over each channel in parts, one block each; then every pixel by itself.

Memory is read twice, and written once: a block sums up one part of one channel, then one block for each channel
brings its parts together, and at last threads side by side normalise pixels side by side. How many parts there are
follows from the shape alone, and all sums are taken in a fixed order: no GPU gives other numbers than another.

The statistics take one pass. Each thread sums up differences d from the first value that it meets, and their squares,
in float64: with n values, ``squares - sum(d)^2 / n`` are its squared deviations from its own mean. What loses digits
in this subtraction is a first value far from all others, but then that value is itself most of the variance. Threads,
and then parts, are brought together as Chan, Golub and LeVeque do (1983): two groups of a and b values with the
means p and q have, together, the squared deviations of both and another ``(p - q)^2 * a * b / (a + b)``.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.types import NamedUniTuple, boolean, float64, int64

from kernels import checks
from kernels.cuda.array import empty, on_device, to_host, zeros
from kernels.cuda.device import cuda, device_function, kernel, tile, typed_kernel

#: Threads of a block that takes sums: a power of two.
_THREADS = tile(256, 4)
#: Values of a part at least, and parts of all channels at most: what keeps a large GPU busy.
_VALUES, _PARTS = tile(2048, 6), tile(2048, 12)


def batch_norm_forward(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """Normalise each channel to mean 0 and variance 1, then scale by gamma and shift by beta.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C, H, W)
        Pictures, float32 or float64.
    gamma, beta : ndarray or DeviceArray, shape (C,), or None
        Scale and shift of each channel, of x's type; None means 1 and 0.
    running_mean, running_var : ndarray or DeviceArray, shape (C,), or None
        Averages over the batches seen so far. Updated in place in training, where both may be None; used in evaluation.
        Those of the host are copied to the device and, in training, back.
    training : bool
        Whether the batch's own statistics normalise it, and update the running ones.
    momentum : float
        Share of this batch in the running statistics.
    eps : float
        Added to the variance.

    Returns
    -------
    y : DeviceArray, shape (N, C, H, W)
        The normalised pictures.
    mean, inv_std : DeviceArray, shape (C,)
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
    x, gamma, beta, *running, training, momentum, eps = checks.batch_norm(
        x, gamma, beta, running_mean, running_var, training, momentum, eps
    )
    x, gamma, beta, mean_so_far, var_so_far = on_device(x, gamma, beta, *running)
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    y = empty(x.shape, x.dtype)
    if training and not x.size:
        return y, zeros(x.shape[1:2], x.dtype), zeros(x.shape[1:2], x.dtype)
    mean, inv_std, constants = _per_channel(x, 1), _per_channel(x, 1), _per_channel(x, 3)
    affine = _or(gamma, mean), _or(beta, mean), gamma is not None, beta is not None
    if not training:
        given = mean_so_far.raw, var_so_far.raw
        _given_statistics_kernel.over(channels, mean.raw, inv_std.raw, constants.raw, *given, *affine, eps, channels)
    elif channels:
        parts, block, cut = _parts(x.shape)
        sums = empty((3, channels, parts), np.float64)
        _statistics_kernel.run(channels * parts, block, sums.raw, x.raw, channels, parts, cut, dtype=x.dtype)
        kept = _or(mean_so_far, mean), _or(var_so_far, inv_std), mean_so_far is not None
        results = mean.raw, inv_std.raw, constants.raw
        _merge_statistics_kernel.run(
            channels, _THREADS, *results, *kept, sums.raw, *affine, momentum, eps, channels, x.shape[0] * pixels, parts
        )
        for host, device in zip(running, (mean_so_far, var_so_far), strict=True):
            if host is not None and host is not device:
                host[...] = to_host(device)
    planes = x.shape[0] * channels
    _normalise_kernel.over_rows(planes, pixels, y.raw, x.raw, constants.raw, planes, pixels, channels)
    return y, mean, inv_std


def batch_norm_backward(dy, x, gamma, mean, inv_std, training):
    """Return the gradients of a batch normalisation.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, C, H, W)
        Gradient of the output.
    x, gamma, training
        As given to `batch_norm_forward`.
    mean, inv_std : ndarray or DeviceArray, shape (C,)
        As returned by it.

    Returns
    -------
    dx : DeviceArray, shape (N, C, H, W)
        Gradient of x.
    dgamma, dbeta : DeviceArray, shape (C,)
        Gradients of scale and shift, also where gamma is None (as if it were 1).

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other.
    """
    dy, x, gamma, mean, inv_std, training = checks.batch_norm_gradient(dy, x, gamma, mean, inv_std, training)
    dy, x, gamma, mean, inv_std = on_device(dy, x, gamma, mean, inv_std)
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    dx = empty(x.shape, x.dtype)
    if not x.size:
        return dx, zeros(x.shape[1:2], x.dtype), zeros(x.shape[1:2], x.dtype)
    count = x.shape[0] * pixels
    parts, block, cut = _parts(x.shape)
    sums, constants = empty((2, channels, parts), np.float64), _per_channel(x, 3)
    arrays = sums.raw, dy.raw, x.raw, mean.raw
    _sums_kernel.run(channels * parts, block, *arrays, channels, parts, cut, dtype=x.dtype)
    dgamma, dbeta = _per_channel(x, 1), _per_channel(x, 1)
    results = dgamma.raw, dbeta.raw, constants.raw
    _merge_sums_kernel.run(
        channels, _THREADS, *results, sums.raw, _or(gamma, mean), gamma is not None, inv_std.raw, channels, count, parts
    )
    planes = x.shape[0] * channels
    _gradient_kernel.over_rows(
        planes, pixels, dx.raw, dy.raw, x.raw, mean.raw, constants.raw, training, planes, pixels, channels
    )
    return dx, dgamma, dbeta


class Cut(NamedTuple):
    """How the values of a channel are cut into parts: groups of pictures, strips of their planes."""

    pictures: int
    pixels: int
    pictures_each: int
    pixels_each: int
    strips: int


_CUT = NamedUniTuple(int64, len(Cut._fields), Cut)


@lru_cache(maxsize=1000)
def _parts(shape):
    """Return into how many parts each channel of pictures is cut, the threads of their blocks, and the cut.

    Threads stand side by side along a plane; where planes are small, a block takes several pictures at once.
    """
    pictures, channels, pixels = shape[0], shape[1], shape[2] * shape[3]
    wanted = max(1, min(pictures * pixels // _VALUES, -(-_PARTS // channels)))
    pictures_each = -(-pictures // min(wanted, pictures))
    groups = -(-pictures // pictures_each)
    pixels_each = -(-pixels // min(-(-wanted // groups), -(-pixels // _VALUES)))
    strips = -(-pixels // pixels_each)
    across = min(_THREADS, 1 << (pixels_each - 1).bit_length())
    return groups * strips, (across, _THREADS // across), Cut(pictures, pixels, pictures_each, pixels_each, strips)


def _per_channel(x, numbers):
    return empty((numbers * x.shape[1],), x.dtype)


def _or(a, other):
    """Return what a kernel takes for ``a``: for None another array, which it does not look at."""
    return (other if a is None else a).raw


# ---- sums over channels ----------------------------------------------------------------------------------------------


@device_function
def _deviations(count, total, squares, other_count, other_total, other_squares):
    """Return the squared deviations of two groups of values together."""
    if other_count == 0:
        return squares
    if count == 0:
        return other_squares
    apart = total / count - other_total / other_count
    return squares + other_squares + apart * apart * (count * (other_count / (count + other_count)))


@device_function
def _fold(counts, totals, squares, thread):
    """Bring the statistics of all threads of a block together, in the first place: halves onto halves."""
    half = _THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half:
            i, j = thread, thread + half
            squares[i] = _deviations(counts[i], totals[i], squares[i], counts[j], totals[j], squares[j])
            totals[i] += totals[j]
            counts[i] += counts[j]
        half //= 2


@device_function
def _fold_sums(a, b, thread):
    """Add up two sums of all threads of a block, into the first place: halves onto halves."""
    half = _THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half:
            a[thread] += a[thread + half]
            b[thread] += b[thread + half]
        half //= 2


@device_function
def _place(parts, cut):
    """Return the channel and the part that a block sums up, its pictures and pixels from first to end."""
    channel, part = cuda.blockIdx.x // parts, cuda.blockIdx.x % parts
    group, strip = part // cut.strips, part % cut.strips
    first_picture, first_pixel = group * cut.pictures_each, strip * cut.pixels_each
    end_picture = min(first_picture + cut.pictures_each, cut.pictures)
    return channel, part, first_picture, end_picture, first_pixel, min(first_pixel + cut.pixels_each, cut.pixels)


@kernel(lambda T: (float64[::1], T[::1], int64, int64, _CUT), threads=_THREADS)
def _statistics_kernel(sums, x, channels, parts, cut):
    """A block: how many values one part of one channel has, their sum and their squared deviations."""
    counts = cuda.shared.array(_THREADS, float64)
    totals = cuda.shared.array(_THREADS, float64)
    squares = cuda.shared.array(_THREADS, float64)
    channel, part, picture, end_picture, first, end = _place(parts, cut)
    across, thread = cuda.blockDim.x, cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    picture, first = picture + cuda.threadIdx.y, first + cuda.threadIdx.x
    near, total, square, n = float64(0), float64(0), float64(0), 0
    if picture < end_picture and first < end:
        near = float64(x[(picture * channels + channel) * cut.pixels + first])
        if not math.isfinite(near):  # nothing can be told from it
            near = float64(0)
    while picture < end_picture:
        plane = (picture * channels + channel) * cut.pixels
        i, beyond = plane + first, plane + end
        while i + 3 * across < beyond:  # four at a time: all are on their way before the first is needed
            a, b, c, d = x[i], x[i + across], x[i + 2 * across], x[i + 3 * across]
            da, db, dc, dd = float64(a) - near, float64(b) - near, float64(c) - near, float64(d) - near
            total += (da + db) + (dc + dd)
            square += (da * da + db * db) + (dc * dc + dd * dd)
            n += 4
            i += 4 * across
        while i < beyond:
            alone = float64(x[i]) - near
            total += alone
            square += alone * alone
            n += 1
            i += across
        picture += cuda.blockDim.y
    counts[thread], totals[thread], squares[thread] = n, 0, 0
    if n > 0:
        square -= total * (total / n)
        totals[thread] = total + n * near
        if square < 0:  # by rounding; not so for NaN
            square = float64(0)
        squares[thread] = square
    _fold(counts, totals, squares, thread)
    if thread == 0:
        at = channel * parts + part
        sums[at], sums[channels * parts + at], sums[2 * channels * parts + at] = counts[0], totals[0], squares[0]


@typed_kernel(
    lambda T: (
        *(T[::1], T[::1], T[::1]), *(T[::1], T[::1], boolean), float64[::1], *(T[::1], T[::1], boolean, boolean),
        *(float64, float64), *(int64, int64, int64),
    ),
    threads=_THREADS,
)  # fmt: skip
def _merge_statistics_kernel(T):
    def merge_statistics(
        mean, inv_std, constants, running_mean, running_var, keep, sums, gamma, beta, has_gamma, has_beta,
        momentum, eps, channels, count, parts,
    ):  # fmt: skip
        """A block: one channel, all parts brought together, and what normalises it."""
        counts = cuda.shared.array(_THREADS, float64)
        totals = cuda.shared.array(_THREADS, float64)
        squares = cuda.shared.array(_THREADS, float64)
        channel, thread = cuda.blockIdx.x, cuda.threadIdx.x
        n, total, square = float64(0), float64(0), float64(0)
        for at in range(channel * parts + thread, (channel + 1) * parts, _THREADS):
            of_part, total_of_part = sums[at], sums[channels * parts + at]
            square = _deviations(n, total, square, of_part, total_of_part, sums[2 * channels * parts + at])
            total += total_of_part
            n += of_part
        counts[thread], totals[thread], squares[thread] = n, total, square
        _fold(counts, totals, squares, thread)
        if thread == 0:
            average, variance = totals[0] / count, squares[0] / count
            scale = float64(gamma[channel]) if has_gamma else float64(1)
            shift = float64(beta[channel]) if has_beta else float64(0)
            inv = _constants(constants, channel, channels, average, variance, eps, scale, shift, float64(T(average)))
            mean[channel], inv_std[channel] = average, inv
            if keep:
                unbiased = squares[0] / (count - 1)
                running_mean[channel] = (1 - momentum) * float64(running_mean[channel]) + momentum * average
                running_var[channel] = (1 - momentum) * float64(running_var[channel]) + momentum * unbiased

    return merge_statistics


@kernel(
    lambda T: (T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], boolean, boolean, float64, int64),
)
def _given_statistics_kernel(
    mean, inv_std, constants, running_mean, running_var, gamma, beta, has_gamma, has_beta, eps, channels
):
    """A thread: what normalises one channel, from given statistics."""
    for channel in range(cuda.grid(1), channels, cuda.gridsize(1)):
        average = float64(running_mean[channel])
        scale = float64(gamma[channel]) if has_gamma else float64(1)
        shift = float64(beta[channel]) if has_beta else float64(0)
        variance = float64(running_var[channel])
        inv = _constants(constants, channel, channels, average, variance, eps, scale, shift, average)
        mean[channel], inv_std[channel] = running_mean[channel], inv


@device_function
def _constants(constants, channel, channels, average, variance, eps, scale, shift, centre):
    """Keep centre, scale and shift of a channel, ``y = (x - centre) * scale + shift``; return 1 over the deviation.

    What the mean lost when it was rounded to the centre is put into the shift.
    """
    inv = float64(1) / float64(math.sqrt(variance + eps))
    lost = float64(0)
    if math.isfinite(centre):
        lost = centre - average
    constants[channel] = centre
    constants[channels + channel] = scale * inv
    constants[2 * channels + channel] = lost * (scale * inv) + shift
    return inv


@kernel(lambda T: (T[::1], T[::1], T[::1], int64, int64, int64))
def _normalise_kernel(y, x, constants, planes, pixels, channels):
    """A thread: the pixels at one place of some planes."""
    first, first_plane = cuda.grid(2)
    pixels_on, planes_on = cuda.gridsize(2)
    plane = first_plane
    while plane < planes:
        channel = plane % channels
        centre, scale = constants[channel], constants[channels + channel]
        shift = constants[2 * channels + channel]
        i, end = plane * pixels + first, (plane + 1) * pixels
        while i + 3 * pixels_on < end:
            a, b, c, d = x[i], x[i + pixels_on], x[i + 2 * pixels_on], x[i + 3 * pixels_on]
            y[i], y[i + pixels_on] = (a - centre) * scale + shift, (b - centre) * scale + shift
            i += 2 * pixels_on
            y[i], y[i + pixels_on] = (c - centre) * scale + shift, (d - centre) * scale + shift
            i += 2 * pixels_on
        while i < end:
            y[i] = (x[i] - centre) * scale + shift
            i += pixels_on
        plane += planes_on


# ---- backward --------------------------------------------------------------------------------------------------------


@kernel(lambda T: (float64[::1], T[::1], T[::1], T[::1], int64, int64, _CUT), threads=_THREADS)
def _sums_kernel(sums, dy, x, mean, channels, parts, cut):
    """A block: the sums of dy and of dy * (x - mean) over one part of one channel."""
    totals = cuda.shared.array(_THREADS, float64)
    dots = cuda.shared.array(_THREADS, float64)
    channel, part, picture, end_picture, first, end = _place(parts, cut)
    across, thread = cuda.blockDim.x, cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    picture, first = picture + cuda.threadIdx.y, first + cuda.threadIdx.x
    average, total, dot = float64(mean[channel]), float64(0), float64(0)
    while picture < end_picture:
        plane = (picture * channels + channel) * cut.pixels
        i, beyond = plane + first, plane + end
        while i + across < beyond:
            a, b, xa, xb = dy[i], dy[i + across], x[i], x[i + across]
            total += float64(a) + float64(b)
            dot += float64(a) * (float64(xa) - average) + float64(b) * (float64(xb) - average)
            i += 2 * across
        while i < beyond:
            total += float64(dy[i])
            dot += float64(dy[i]) * (float64(x[i]) - average)
            i += across
        picture += cuda.blockDim.y
    totals[thread], dots[thread] = total, dot
    _fold_sums(totals, dots, thread)
    if thread == 0:
        at = channel * parts + part
        sums[at], sums[channels * parts + at] = totals[0], dots[0]


@kernel(
    lambda T: (T[::1], T[::1], T[::1], float64[::1], T[::1], boolean, T[::1], int64, int64, int64), threads=_THREADS
)
def _merge_sums_kernel(dgamma, dbeta, constants, sums, gamma, has_gamma, inv_std, channels, count, parts):
    """A block: both sums over one channel, and ``dx = scale * dy + slope * (x - mean) + shift``."""
    totals = cuda.shared.array(_THREADS, float64)
    dots = cuda.shared.array(_THREADS, float64)
    channel, thread = cuda.blockIdx.x, cuda.threadIdx.x
    total, dot = float64(0), float64(0)
    for at in range(channel * parts + thread, (channel + 1) * parts, _THREADS):
        total += sums[at]
        dot += sums[channels * parts + at]
    totals[thread], dots[thread] = total, dot
    _fold_sums(totals, dots, thread)
    if thread == 0:
        inv = float64(inv_std[channel])
        dbeta[channel], dgamma[channel] = totals[0], dots[0] * inv
        scale = (float64(gamma[channel]) if has_gamma else float64(1)) * inv
        constants[channel] = scale
        constants[channels + channel] = -scale * inv * (dots[0] * inv) / count
        constants[2 * channels + channel] = -scale * totals[0] / count


@kernel(lambda T: (T[::1], T[::1], T[::1], T[::1], T[::1], boolean, int64, int64, int64))
def _gradient_kernel(dx, dy, x, mean, constants, training, planes, pixels, channels):
    """A thread: the pixels at one place of some planes. Given statistics are constants, and x is not read."""
    first, first_plane = cuda.grid(2)
    pixels_on, planes_on = cuda.gridsize(2)
    plane = first_plane
    while plane < planes:
        channel = plane % channels
        scale, slope = constants[channel], constants[channels + channel]
        shift, average = constants[2 * channels + channel], mean[channel]
        i, end = plane * pixels + first, (plane + 1) * pixels
        if training:
            while i + pixels_on < end:
                a, b, xa, xb = dy[i], dy[i + pixels_on], x[i], x[i + pixels_on]
                dx[i] = a * scale + ((xa - average) * slope + shift)
                dx[i + pixels_on] = b * scale + ((xb - average) * slope + shift)
                i += 2 * pixels_on
            while i < end:
                dx[i] = dy[i] * scale + ((x[i] - average) * slope + shift)
                i += pixels_on
        else:
            while i < end:
                dx[i] = dy[i] * scale
                i += pixels_on
        plane += planes_on
