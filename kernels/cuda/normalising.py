"""Passes of batch normalisation, alone or with a residual and a ReLU.

Memory is read twice, and written once: first the statistics (see ``moments``), then threads side by side normalise
pixels side by side, add the residual and apply the ReLU. Backward likewise: sums over each channel, then the gradients.
Both of these passes find out again what the ReLU stopped, by the operations of the forward pass.
"""

import numpy as np
from numba.types import boolean, float64, int64

from kernels.cuda.array import empty, on_device, to_host, zeros
from kernels.cuda.device import cuda, device_function, kernel, typed_kernel
from kernels.cuda.moments import (
    CUT,
    ROWS,
    THREADS,
    fold_sums,
    given_statistics_kernel,
    merge_statistics_kernel,
    parts_of,
    place_of,
    statistics_kernel,
)


def normalise(x, gamma, beta, running_mean, running_var, training, momentum, eps, *, residual=None, relu=False):
    """Return what a normalisation gives, of arguments that were checked.

    Parameters
    ----------
    x, gamma, beta, running_mean, running_var, training, momentum, eps
        As ``batch_norm_forward`` takes them.
    residual : DeviceArray or None
        What is added before a ReLU.
    relu : bool
        Whether there is one.

    Returns
    -------
    y : DeviceArray
        Of x's shape.
    mean, inv_std : DeviceArray, shape (C,)
        What normalised it; zeros for an empty batch in training.
    statistics : DeviceArray, shape (5, C)
        All that `gradients` needs to find y again.
    """
    running = running_mean, running_var
    x, gamma, beta, mean_so_far, var_so_far = on_device(x, gamma, beta, *running)
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    y = empty(x.shape, x.dtype)
    if training and not x.size:
        zero = zeros((channels,), x.dtype)
        return y, zero, zeros((channels,), x.dtype), zeros((ROWS, channels), x.dtype)
    mean, inv_std, constants = (empty((rows * channels,), x.dtype) for rows in (1, 1, ROWS))
    affine = _or(gamma, mean), _or(beta, mean), gamma is not None, beta is not None
    if not training:
        given = mean_so_far.raw, var_so_far.raw
        given_statistics_kernel.over(channels, mean.raw, inv_std.raw, constants.raw, *given, *affine, eps, channels)
    elif channels:
        parts, block, cut = parts_of(x.shape)
        sums = empty((3, channels, parts), np.float64)
        statistics_kernel.run(channels * parts, block, sums.raw, x.raw, channels, parts, cut, dtype=x.dtype)
        kept = _or(mean_so_far, mean), _or(var_so_far, inv_std), mean_so_far is not None
        results = mean.raw, inv_std.raw, constants.raw
        merge_statistics_kernel.run(
            channels, THREADS, *results, *kept, sums.raw, *affine, momentum, eps, channels, x.shape[0] * pixels, parts
        )
        for host, device in zip(running, (mean_so_far, var_so_far), strict=True):
            if host is not None and host is not device:
                host[...] = to_host(device)
    planes = x.shape[0] * channels
    sizes = constants.raw, planes, pixels, channels
    _NORMALISE[relu, residual is not None].over_rows(planes, pixels, y.raw, x.raw, _or(residual, x), *sizes)
    return y, mean, inv_std, constants.reshape(ROWS, channels)


def gradients(dy, x, mean, gamma, inv_std, training, *, relu=False, y=None):
    """Return the gradients of a normalisation, of arrays on the device that were checked.

    Parameters
    ----------
    dy, x : DeviceArray, shape (N, C, H, W)
        Gradient of the output, and the input.
    mean : DeviceArray
        Begins with each channel's mean; with a ReLU the statistics that `normalise` returned, which do.
    gamma, inv_std : (DeviceArray or None, int)
        Arrays, and where in them the numbers of the channels begin.
    training : bool
        Whether the batch's own statistics normalised it.
    relu : bool
        Whether a ReLU followed.
    y : DeviceArray or None
        The output, if a residual was added before the ReLU.

    Returns
    -------
    dx, dgamma, dbeta, dresidual : DeviceArray
        The last is None without a residual.
    """
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    dx = empty(x.shape, x.dtype)
    dresidual = None if y is None else empty(x.shape, x.dtype)
    if not x.size:
        return dx, zeros((channels,), x.dtype), zeros((channels,), x.dtype), dresidual
    parts, block, cut = parts_of(x.shape)
    sums = empty((2, channels, parts), np.float64)
    dgamma, dbeta, constants = (empty((rows * channels,), x.dtype) for rows in (1, 1, 3))
    source = "" if not relu else "x" if y is None else "y"
    arrays = dy.raw, x.raw, _or(y, x), mean.raw
    _SUMS[source].run(channels * parts, block, sums.raw, *arrays, channels, parts, cut, dtype=x.dtype)
    of_channels = _or(gamma[0], mean), gamma[1], gamma[0] is not None, inv_std[0].raw, inv_std[1]
    _merge_sums_kernel.run(
        channels, THREADS, dgamma.raw, dbeta.raw, constants.raw, sums.raw, *of_channels,
        channels, x.shape[0] * pixels, parts,
    )  # fmt: skip
    planes = x.shape[0] * channels
    _GRADIENT[source].over_rows(
        planes, pixels, dx.raw, _or(dresidual, dx), *arrays, constants.raw, training, planes, pixels, channels
    )
    return dx, dgamma, dbeta, dresidual


def _or(a, other):
    """Return what a kernel takes for ``a``: for None another array, which it does not look at."""
    return (other if a is None else a).raw


@device_function
def _normal(value, centre, scale, shift):
    """Return a value normalised. Forward and backward round alike: the product and the sum in one."""
    return cuda.fma(value - centre, scale, shift)


def _normalise_kernel(relu, residual):
    """Make the kernel that normalises, and adds a residual, and ends in a ReLU."""

    def make(T):
        zero = T(0)

        @device_function
        def ended(value, more):
            if residual:
                value += more
            if relu and value < 0:  # not so for NaN
                value = zero
            return value

        def normalise_kernel(y, x, more, constants, planes, pixels, channels):
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
                    ma, mb, mc, md = zero, zero, zero, zero
                    if residual:
                        ma, mb, mc, md = more[i], more[i + pixels_on], more[i + 2 * pixels_on], more[i + 3 * pixels_on]
                    y[i] = ended(_normal(a, centre, scale, shift), ma)
                    y[i + pixels_on] = ended(_normal(b, centre, scale, shift), mb)
                    i += 2 * pixels_on
                    y[i] = ended(_normal(c, centre, scale, shift), mc)
                    y[i + pixels_on] = ended(_normal(d, centre, scale, shift), md)
                    i += 2 * pixels_on
                while i < end:
                    y[i] = ended(_normal(x[i], centre, scale, shift), more[i] if residual else zero)
                    i += pixels_on
                plane += planes_on

        return normalise_kernel

    make.__name__ = "normalise" + "_residual" * residual + "_relu" * relu
    return typed_kernel(lambda T: (T[::1], T[::1], T[::1], T[::1], int64, int64, int64))(make)


#: By whether a ReLU and a residual follow.
_NORMALISE = {
    (relu, more): _normalise_kernel(relu, more) for relu, more in ((False, False), (True, False), (True, True))
}


# ---- backward --------------------------------------------------------------------------------------------------------


def _passing(T, source):
    """Return the function that tells what of dy passes the ReLU: where there is none, all of it.

    What was written is found out by ``source``: "x", to be normalised again, or "y" itself.
    """
    zero, from_x, from_y = T(0), source == "x", source == "y"

    @device_function
    def passed(dy, x, y, i, centre, scale, shift):
        gradient = dy[i]
        if from_y and y[i] <= 0:
            gradient = zero
        if from_x and _normal(x[i], centre, scale, shift) <= 0:
            gradient = zero
        return gradient

    return passed


def _sums_kernel(source):
    """Make the kernel of the sums, of what passes a ReLU."""
    relu = source == "x"

    def make(T):
        passed = _passing(T, source)

        def sums_kernel(sums, dy, x, y, constants, channels, parts, cut):
            """A block: the sums of dy and of dy * (x - mean) over one part of one channel."""
            totals = cuda.shared.array(THREADS, float64)
            dots = cuda.shared.array(THREADS, float64)
            channel, part, picture, end_picture, first, end = place_of(parts, cut)
            across, thread = cuda.blockDim.x, cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
            picture, first = picture + cuda.threadIdx.y, first + cuda.threadIdx.x
            centre = constants[channel]
            scale, shift = centre, centre
            if relu:
                scale, shift = constants[channels + channel], constants[2 * channels + channel]
            average, total, dot = float64(centre), float64(0), float64(0)
            while picture < end_picture:
                plane = (picture * channels + channel) * cut.pixels
                i, beyond = plane + first, plane + end
                while i + across < beyond:
                    a, b = passed(dy, x, y, i, centre, scale, shift), passed(dy, x, y, i + across, centre, scale, shift)
                    xa, xb = x[i], x[i + across]
                    total += float64(a) + float64(b)
                    dot += float64(a) * (float64(xa) - average) + float64(b) * (float64(xb) - average)
                    i += 2 * across
                while i < beyond:
                    alone = float64(passed(dy, x, y, i, centre, scale, shift))
                    total += alone
                    dot += alone * (float64(x[i]) - average)
                    i += across
                picture += cuda.blockDim.y
            totals[thread], dots[thread] = total, dot
            fold_sums(totals, dots, thread)
            if thread == 0:
                at = channel * parts + part
                sums[at], sums[channels * parts + at] = totals[0], dots[0]

        return sums_kernel

    make.__name__ = _name("sums", source)
    return typed_kernel(lambda T: (float64[::1], T[::1], T[::1], T[::1], T[::1], int64, int64, CUT), THREADS)(make)


def _name(what, source):
    """Return the name of a kernel."""
    return what + "_residual" * (source == "y") + "_relu" * (source != "")


@kernel(
    lambda T: (
        T[::1], T[::1], T[::1], float64[::1], T[::1], int64, boolean, T[::1], int64, int64, int64, int64
    ),
    threads=THREADS,
)  # fmt: skip
def _merge_sums_kernel(
    dgamma, dbeta, constants, sums, gamma, first_gamma, has_gamma, inv_std, first_inv_std, channels, count, parts
):
    """A block: both sums over one channel, and ``dx = scale * dy + slope * (x - mean) + shift``."""
    totals = cuda.shared.array(THREADS, float64)
    dots = cuda.shared.array(THREADS, float64)
    channel, thread = cuda.blockIdx.x, cuda.threadIdx.x
    total, dot = float64(0), float64(0)
    for at in range(channel * parts + thread, (channel + 1) * parts, THREADS):
        total += sums[at]
        dot += sums[channels * parts + at]
    totals[thread], dots[thread] = total, dot
    fold_sums(totals, dots, thread)
    if thread == 0:
        inv = float64(inv_std[first_inv_std + channel])
        dbeta[channel], dgamma[channel] = totals[0], dots[0] * inv
        scale = (float64(gamma[first_gamma + channel]) if has_gamma else float64(1)) * inv
        constants[channel] = scale
        constants[channels + channel] = -scale * inv * (dots[0] * inv) / count
        constants[2 * channels + channel] = -scale * totals[0] / count


def _gradient_kernel(source):
    """Make the kernel of the gradients, of what passes a ReLU."""
    relu, residual = source == "x", source == "y"

    def make(T):
        passed = _passing(T, source)

        def gradient_kernel(dx, dresidual, dy, x, y, statistics, constants, training, planes, pixels, channels):
            """A thread: the pixels at one place of some planes. Given statistics are constants."""
            first, first_plane = cuda.grid(2)
            pixels_on, planes_on = cuda.gridsize(2)
            plane = first_plane
            while plane < planes:
                channel = plane % channels
                scale, slope = constants[channel], constants[channels + channel]
                shift, centre = constants[2 * channels + channel], statistics[channel]
                own_scale, own_shift = scale, shift
                if relu:
                    own_scale, own_shift = statistics[channels + channel], statistics[2 * channels + channel]
                i, end = plane * pixels + first, (plane + 1) * pixels
                if training:
                    while i + pixels_on < end:
                        j = i + pixels_on
                        a = passed(dy, x, y, i, centre, own_scale, own_shift)
                        b = passed(dy, x, y, j, centre, own_scale, own_shift)
                        xa, xb = x[i], x[j]
                        if residual:
                            dresidual[i], dresidual[j] = a, b
                        dx[i] = a * scale + ((xa - centre) * slope + shift)
                        dx[j] = b * scale + ((xb - centre) * slope + shift)
                        i += 2 * pixels_on
                    while i < end:
                        alone = passed(dy, x, y, i, centre, own_scale, own_shift)
                        if residual:
                            dresidual[i] = alone
                        dx[i] = alone * scale + ((x[i] - centre) * slope + shift)
                        i += pixels_on
                else:
                    while i < end:
                        alone = passed(dy, x, y, i, centre, own_scale, own_shift)
                        if residual:
                            dresidual[i] = alone
                        dx[i] = alone * scale
                        i += pixels_on
                plane += planes_on

        return gradient_kernel

    make.__name__ = _name("gradient", source)
    return typed_kernel(lambda T: (*(T[::1],) * 7, boolean, int64, int64, int64))(make)


#: By what tells where the ReLU let something pass: "" without one, then x, or y where a residual was added.
_SUMS = {source: _sums_kernel(source) for source in ("", "x", "y")}
_GRADIENT = {source: _gradient_kernel(source) for source in ("", "x", "y")}
