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

import numpy as np
from numba.types import boolean, float64, int64

from kernels import checks
from kernels.cuda.array import empty, on_device, to_device, to_host
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
        return y, *_zeros(x, 2)
    mean, inv_std, constants = _per_channel(x, 1), _per_channel(x, 1), _per_channel(x, 3)
    affine = _or(gamma, mean), _or(beta, mean), gamma is not None, beta is not None
    if not training:
        given = mean_so_far.raw, var_so_far.raw
        _given_statistics_kernel.over(channels, mean.raw, inv_std.raw, constants.raw, *given, *affine, eps, channels)
    elif channels:
        count = x.shape[0] * pixels
        parts, size = _parts(channels, count)
        sums = empty((2, channels, parts), np.float64)
        _statistics_kernel.run(channels * parts, _THREADS, sums.raw, x.raw, channels, pixels, count, parts, size)
        kept = _or(mean_so_far, mean), _or(var_so_far, inv_std), mean_so_far is not None
        results = mean.raw, inv_std.raw, constants.raw
        _merge_statistics_kernel.run(
            channels, _THREADS, *results, *kept, sums.raw, *affine, momentum, eps, channels, count, parts, size
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
        return dx, *_zeros(x, 2)
    count = x.shape[0] * pixels
    parts, size = _parts(channels, count)
    sums, constants = empty((2, channels, parts), np.float64), _per_channel(x, 3)
    _sums_kernel.run(
        channels * parts, _THREADS, sums.raw, dy.raw, x.raw, mean.raw, channels, pixels, count, parts, size
    )
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


def _parts(channels, count):
    """Return into how many parts the values of each channel are cut, and how many values each has."""
    parts = max(1, min(count // _VALUES, -(-_PARTS // channels)))
    size = -(-count // parts)
    return -(-count // size), size


def _per_channel(x, numbers):
    return empty((numbers * x.shape[1],), x.dtype)


def _zeros(x, arrays):
    """Return arrays of zeros, one value per channel: of no pixels."""
    return tuple(to_device(np.zeros(x.shape[1], x.dtype)) for _ in range(arrays))


def _or(a, other):
    """Return what a kernel takes for ``a``: for None another array, which it does not look at."""
    return (other if a is None else a).raw


# ---- sums over channels ----------------------------------------------------------------------------------------------


@device_function
def _deviations(count, total, squares, other_count, other_total, other_squares):
    """Return the squared deviations of two groups of values together, the first not empty."""
    if other_count == 0:
        return squares
    apart = total / count - other_total / other_count
    return squares + other_squares + apart * apart * (count * (other_count / (count + other_count)))


@device_function
def _fold(counts, totals, squares, thread):
    """Bring the statistics of all threads of a block together, in the first place: halves onto halves."""
    half = _THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half and counts[thread + half] > 0:
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


@kernel(lambda T: (float64[::1], T[::1], int64, int64, int64, int64, int64), threads=_THREADS)
def _statistics_kernel(sums, x, channels, pixels, count, parts, size):
    """A block: sum and squared deviations of one part of one channel. Its threads read pixels side by side."""
    counts = cuda.shared.array(_THREADS, float64)
    totals = cuda.shared.array(_THREADS, float64)
    squares = cuda.shared.array(_THREADS, float64)
    channel, part, thread = cuda.blockIdx.x % channels, cuda.blockIdx.x // channels, cuda.threadIdx.x
    first, end = part * size + thread, min((part + 1) * size, count)

    # which picture and which pixel comes next, without a division for each
    picture, pixel = first // pixels, first % pixels
    pictures_on, pixels_on = _THREADS // pixels, _THREADS % pixels
    near, total, square, n = float64(0), float64(0), float64(0), 0
    if first < end:
        near = float64(x[(picture * channels + channel) * pixels + pixel])
        if not math.isfinite(near):  # nothing can be told from it
            near = float64(0)
    for _ in range(first, end, _THREADS):
        d = float64(x[(picture * channels + channel) * pixels + pixel]) - near
        total += d
        square += d * d
        n += 1
        picture, pixel = picture + pictures_on, pixel + pixels_on
        if pixel >= pixels:
            picture, pixel = picture + 1, pixel - pixels
    counts[thread], totals[thread], squares[thread] = n, 0, 0
    if n > 0:
        square -= total * (total / n)
        totals[thread] = total + n * near
        if square < 0:  # by rounding; not so for NaN
            square = float64(0)
        squares[thread] = square
    _fold(counts, totals, squares, thread)
    if thread == 0:
        sums[channel * parts + part] = totals[0]
        sums[(channels + channel) * parts + part] = squares[0]


@typed_kernel(
    lambda T: (
        *(T[::1], T[::1], T[::1]), *(T[::1], T[::1], boolean), float64[::1], *(T[::1], T[::1], boolean, boolean),
        *(float64, float64), *(int64, int64, int64, int64),
    ),
    threads=_THREADS,
)  # fmt: skip
def _merge_statistics_kernel(T):
    def merge_statistics(
        mean, inv_std, constants, running_mean, running_var, keep, sums, gamma, beta, has_gamma, has_beta,
        momentum, eps, channels, count, parts, size,
    ):  # fmt: skip
        """A block: one channel, all parts brought together, and what normalises it."""
        counts = cuda.shared.array(_THREADS, float64)
        totals = cuda.shared.array(_THREADS, float64)
        squares = cuda.shared.array(_THREADS, float64)
        channel, thread = cuda.blockIdx.x, cuda.threadIdx.x
        n, total, square = float64(0), float64(0), float64(0)
        for part in range(thread, parts, _THREADS):
            of_part = float64(min(size, count - part * size))
            total_of_part = sums[channel * parts + part]
            square_of_part = sums[(channels + channel) * parts + part]
            square = _deviations(of_part, total_of_part, square_of_part, n, total, square)
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
    for plane in range(first_plane, planes, planes_on):
        channel = plane % channels
        centre, scale = constants[channel], constants[channels + channel]
        shift = constants[2 * channels + channel]
        for i in range(plane * pixels + first, (plane + 1) * pixels, pixels_on):
            y[i] = (x[i] - centre) * scale + shift


# ---- backward --------------------------------------------------------------------------------------------------------


@kernel(lambda T: (float64[::1], T[::1], T[::1], T[::1], int64, int64, int64, int64, int64), threads=_THREADS)
def _sums_kernel(sums, dy, x, mean, channels, pixels, count, parts, size):
    """A block: the sums of dy and of dy * (x - mean) over one part of one channel."""
    totals = cuda.shared.array(_THREADS, float64)
    dots = cuda.shared.array(_THREADS, float64)
    channel, part, thread = cuda.blockIdx.x % channels, cuda.blockIdx.x // channels, cuda.threadIdx.x
    first, end = part * size + thread, min((part + 1) * size, count)
    picture, pixel = first // pixels, first % pixels
    pictures_on, pixels_on = _THREADS // pixels, _THREADS % pixels
    average, total, dot = float64(mean[channel]), float64(0), float64(0)
    for _ in range(first, end, _THREADS):
        at = (picture * channels + channel) * pixels + pixel
        gradient = float64(dy[at])
        total += gradient
        dot += gradient * (float64(x[at]) - average)
        picture, pixel = picture + pictures_on, pixel + pixels_on
        if pixel >= pixels:
            picture, pixel = picture + 1, pixel - pixels
    totals[thread], dots[thread] = total, dot
    _fold_sums(totals, dots, thread)
    if thread == 0:
        sums[channel * parts + part] = totals[0]
        sums[(channels + channel) * parts + part] = dots[0]


@kernel(
    lambda T: (T[::1], T[::1], T[::1], float64[::1], T[::1], boolean, T[::1], int64, int64, int64), threads=_THREADS
)
def _merge_sums_kernel(dgamma, dbeta, constants, sums, gamma, has_gamma, inv_std, channels, count, parts):
    """A block: both sums over one channel, and ``dx = scale * dy + slope * (x - mean) + shift``."""
    totals = cuda.shared.array(_THREADS, float64)
    dots = cuda.shared.array(_THREADS, float64)
    channel, thread = cuda.blockIdx.x, cuda.threadIdx.x
    total, dot = float64(0), float64(0)
    for part in range(thread, parts, _THREADS):
        total += sums[channel * parts + part]
        dot += sums[(channels + channel) * parts + part]
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
    for plane in range(first_plane, planes, planes_on):
        channel = plane % channels
        scale, slope = constants[channel], constants[channels + channel]
        shift, average = constants[2 * channels + channel], mean[channel]
        for i in range(plane * pixels + first, (plane + 1) * pixels, pixels_on):
            if training:
                dx[i] = dy[i] * scale + ((x[i] - average) * slope + shift)
            else:
                dx[i] = dy[i] * scale
