"""RoIPool. The feature map is turned so that the channels of a cell lie side by side; vectors run along the channels.

Forward: one task computes one RoI. A bin keeps, for all channels at once, the largest value so far and its place.

Backward: one task computes one plane and adds all RoIs of its picture in order: the sums do not depend on the number
of threads.
"""

import numpy as np
from numba import prange

from kernels import checks, scalar_math
from kernels.cpu.blocks import flat
from kernels.cpu.channels_last import channels_last, turn_bins
from kernels.jit import jit

_round = jit(scalar_math.round_half_away)
#: The value that a bin starts from, in float64 too: torchvision's choice.
_LOWEST = -float(np.finfo(np.float32).max)
_SPARE = 16


def roi_pool_forward(x, rois, output_size, spatial_scale=1.0):
    """Return the largest value of each bin of each box, and where it stands.

    Parameters
    ----------
    x : ndarray, (N, C, H, W), float32 or float64
        Feature maps.
    rois : ndarray, (K, 5)
        Batch index, x1, y1, x2, y2 of each box, in picture coordinates.
    output_size : int or pair of int
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.

    Returns
    -------
    y : ndarray, (K, C, oH, oW)
        Output.
    argmax : ndarray of int64, (K, C, oH, oW)
        Place of each maximum, as ``row * W + column`` of its plane; -1 where there is none.

    Raises
    ------
    TypeError
        If ``x`` or ``rois`` is not an array of float32 or float64, or their types differ.
    ValueError
        If a shape or parameter does not fit, a coordinate is not finite, or a batch index is not that of a picture.

    Notes
    -----
    As ``torchvision.ops.roi_pool``: the first of equal values wins, NaN never does, a bin without cells gives 0, and
    one of only NaN or minus infinity gives -3.4028235e38. What is computed says ``kernels.naive.roi_pool``.
    """
    x, rois, (oh, ow), scale = checks.roi_pool(x, rois, output_size, spatial_scale)
    n, c, h, w = x.shape
    y = np.empty((len(rois), c, oh, ow), x.dtype)
    argmax = np.empty(y.shape, np.int64)
    if y.size:
        split = (len(rois), c, oh * ow)
        _forward_kernel(y.reshape(split), argmax.reshape(split), channels_last(x), flat(rois), (h, w), ow, scale)
    return y, argmax


def roi_pool_backward(dy, rois, argmax, input_shape):
    """Return the gradient of the feature maps: each element of ``dy`` added where its maximum stood.

    Parameters
    ----------
    dy : ndarray, (K, C, oH, oW), float32 or float64
        Gradient of the output.
    rois : ndarray, (K, 5)
        As given to ``roi_pool_forward``.
    argmax : ndarray of int, (K, C, oH, oW)
        What it returned.
    input_shape : tuple of int
        (N, C, H, W) of the feature maps.

    Returns
    -------
    ndarray, (N, C, H, W)
        Gradient of the feature maps.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other, or an index lies outside a plane.
    """
    dy, rois, argmax, input_shape = checks.roi_pool_gradient(dy, rois, argmax, input_shape)
    dx = np.zeros(input_shape, dy.dtype)
    if dy.size:
        n, c, h, w = input_shape
        picture = rois[:, 0].astype(np.int64)
        _backward_kernel(dx.reshape(n, c, h * w), flat(dy), flat(argmax), picture, dy.shape[2] * dy.shape[3])
    return dx


@jit(parallel=True)
def _forward_kernel(y, argmax, x, rois, map_size, columns, spatial_scale):
    for k in prange(y.shape[0]):
        _pool_roi(np.int64(k), y[k], argmax[k], x, rois, map_size, columns, spatial_scale)


@jit
def _pool_roi(k, y, argmax, x, rois, map_size, columns, spatial_scale):
    """Compute one RoI: each bin for all channels, then turned into planes."""
    channels, bins = y.shape
    height, width = map_size
    first = np.int64(rois[5 * k]) * height * width
    x0, x1 = _edges(rois[5 * k + 1], rois[5 * k + 3], columns, width, spatial_scale)
    y0, y1 = _edges(rois[5 * k + 2], rois[5 * k + 4], bins // columns, height, spatial_scale)
    largest = np.zeros((bins, channels + _SPARE), y.dtype)
    place = np.empty((bins, channels + _SPARE), np.int64)
    for b in range(bins):
        py, px = b // columns, b % columns
        place[b] = -1
        if y0[py] < y1[py] and x0[px] < x1[px]:
            largest[b] = y.dtype.type(_LOWEST)
        for row in range(y0[py], y1[py]):
            for cell in range(row * width + x0[px], row * width + x1[px]):
                _keep_larger(largest[b], place[b], x[first + cell], cell)
    turn_bins(y, largest)
    turn_bins(argmax, place)


@jit
def _edges(low, high, bins, size, spatial_scale):
    """Return the first cell of each bin along one axis, and the one after its last, within a map of ``size`` cells."""
    T = type(low)
    start, end = np.float64(_round(low * spatial_scale)), np.float64(_round(high * spatial_scale))
    bin_size = T(max(end - start + 1.0, 1.0)) / T(bins)
    first, after = np.empty(bins, np.int64), np.empty(bins, np.int64)
    for p in range(bins):
        # clamped as floats, since huge ones have no whole number
        first[p] = np.int64(min(max(start + np.floor(T(p) * bin_size), 0.0), np.float64(size)))
        after[p] = np.int64(min(max(start + np.ceil(T(p + 1) * bin_size), 0.0), np.float64(size)))
    return first, after


@jit
def _keep_larger(largest, place, values, cell):
    """Take over the channels in which the values of a cell are larger."""
    for c in range(values.size):
        wins = values[c] > largest[c]
        largest[c] = values[c] if wins else largest[c]
        place[c] = cell if wins else place[c]


@jit(parallel=True)
def _backward_kernel(dx, dy, argmax, picture, bins):
    for plane in prange(dx.shape[0] * dx.shape[1]):
        _gather_plane(np.int64(plane), dx, dy, argmax, picture, bins)


@jit
def _gather_plane(plane, dx, dy, argmax, picture, bins):
    """Add up the gradients of one plane, RoI after RoI."""
    channels = dx.shape[1]
    n, c = plane // channels, plane % channels
    total = dx[n, c]
    for k in range(picture.size):
        if picture[k] == n:
            base = (k * channels + c) * bins
            for b in range(base, base + bins):
                if argmax[b] >= 0:
                    total[argmax[b]] += dy[b]
