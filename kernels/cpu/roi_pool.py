"""RoIPool. The feature map is turned so that the channels of a cell lie side by side; vectors run along the channels.

Forward: one task computes one RoI. A bin keeps, for all channels at once, the largest value so far and its place.

Backward: one task computes a few planes and adds all RoIs of their picture in order: the sums do not depend on the
number of threads.
"""

import numpy as np
from numba import prange

from kernels import checks, scalar_math
from kernels.checks.rois import check_places
from kernels.cpu import memory
from kernels.cpu.blocks import flat
from kernels.cpu.channels_last import channel_parts, channels_last, touched_groups, transpose
from kernels.cpu.native import native
from kernels.cpu.roi_vectors import fetch, largest_of_rows, whole_vectors
from kernels.jit import jit

_round = jit(scalar_math.round_half_away)
#: The value that a bin starts from, in float64 too: torchvision's choice.
_LOWEST = -float(np.finfo(np.float32).max)
#: Elements between rows of scratch whose size would else be a power of two.
_SPARE = 16
#: Planes of a task of the backward pass: few enough to stay in the cache, and what is read of one RoI lies together.
_PLANES = 4
#: RoIs whose pieces are fetched ahead: they lie too far apart for the processor to foresee.
_AHEAD = 2
#: Numbers of 4 bytes in a cache line.
_LINE = 16
#: Maxima are found with places in numbers as long as the values, so that both fill vectors alike.
_PLACE = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}


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
    argmax : ndarray of int32, (K, C, oH, oW)
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
    y = memory.empty((len(rois), c, oh, ow), x.dtype)
    argmax = memory.empty(y.shape, np.int32)
    if y.size:
        picture = rois[:, 0].astype(np.int64)
        rows, columns = _edges(rois, 2, oh, h, scale), _edges(rois, 1, ow, w, scale)
        groups = touched_groups(picture, _span(rows), _span(columns), x.shape)
        outputs = y.reshape(-1), argmax.reshape(-1), np.empty(0, _PLACE[x.dtype])
        lowest = np.array([_LOWEST], x.dtype)
        for part in channel_parts(x.shape, x.itemsize):
            channels = part.stop - part.start
            step = whole_vectors(channels, x.itemsize)
            turned, place = channels_last(x, groups, part, step), (part.start, channels, c)
            pool_roi = native(_pool_roi, x.dtype, (0, *outputs, place, turned, step, 0, w, lowest, rows, columns))
            first = picture * (h * w * step)
            _forward_kernel(pool_roi, *outputs, place, turned, step, first, w, lowest, rows, columns)
    return y, argmax


def _edges(rois, column, bins, size, scale):
    """Return the first cell of each bin of each RoI along one axis, and the one after its last: (2, K, bins)."""
    edges = np.empty((2, len(rois), bins), np.int64)
    _edges_kernel(edges, flat(rois), column, size, scale)
    return edges


def _span(edges):
    """Return the first cell that each RoI touches along one axis, and the one after its last."""
    return np.stack((edges[0].min(axis=1), edges[1].max(axis=1)), axis=1)


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
    dy, rois, argmax, input_shape = checks.roi_pool_gradient(dy, rois, argmax, input_shape, places=False)
    if not dy.size:
        return np.zeros(input_shape, dy.dtype)
    dx = memory.empty(input_shape, dy.dtype)
    n, c, h, w = input_shape
    picture = rois[:, 0].astype(np.int64)
    found = np.empty((n * -(-c // _PLANES), 2), np.int64)
    found[:] = h * w, -1  # for pictures without RoIs
    _backward_kernel(dx.reshape(n, c, h * w), found, flat(dy), flat(argmax), picture, dy.shape[2] * dy.shape[3])
    check_places(found[:, 0].min(), found[:, 1].max(), input_shape)
    return dx


@jit
def _edges_kernel(edges, rois, column, size, spatial_scale):
    T = rois.dtype.type
    bins = edges.shape[2]
    for k in range(edges.shape[1]):
        low, high = rois[5 * k + column], rois[5 * k + column + 2]
        start, end = np.float64(_round(low * spatial_scale)), np.float64(_round(high * spatial_scale))
        bin_size = T(max(end - start + 1.0, 1.0)) / T(bins)
        for p in range(bins):
            # clamped as floats, since huge ones have no whole number
            first, after = start + np.floor(T(p) * bin_size), start + np.ceil(T(p + 1) * bin_size)
            edges[0, k, p] = np.int64(min(max(first, 0.0), np.float64(size)))
            edges[1, k, p] = np.int64(min(max(after, 0.0), np.float64(size)))


@jit(parallel=True)
def _forward_kernel(pool_roi, y, argmax, example, part, x, step, first, width, lowest, rows, columns):
    for k in prange(first.size):
        pool_roi(np.int64(k), y, argmax, example, part, x, step, first[k], width, lowest, rows, columns)


@jit
def _pool_roi(k, y, argmax, example, part, x, step, first, width, lowest, rows, columns):
    """Compute some channels of one RoI, whose picture begins at ``first`` of x; ``step`` numbers of x are one cell."""
    start, channels, all_channels = part
    across, bins = columns.shape[2], rows.shape[2] * columns.shape[2]
    values, places = np.empty(bins * (step + _SPARE), y.dtype), np.empty(bins * (step + _SPARE), y.dtype)
    place_numbers = places.view(example.dtype)
    cells = np.empty(_most(rows, k) * _most(columns, k), np.int64)
    for b in range(bins):
        py, px = b // across, b % across
        count = 0
        for row in range(rows[0, k, py], rows[1, k, py]):
            for column in range(columns[0, k, px], columns[1, k, px]):
                cells[count] = row * width + column
                count += 1
        here = b * (step + _SPARE)
        if count > 0:
            largest_of_rows(values, places, here, lowest, x, first, step, cells, count)
        else:
            values[here : here + step], place_numbers[here : here + step] = 0, -1
    there = (k * all_channels + start) * bins
    transpose(y, there, bins, values, 0, step + _SPARE, bins, channels)
    turned = np.empty(channels * bins, y.dtype)
    transpose(turned, 0, bins, places, 0, step + _SPARE, bins, channels)
    argmax[there : there + turned.size] = turned.view(example.dtype)


@jit
def _most(edges, k):
    """Return how many cells the longest bin of RoI k has along one axis."""
    most = np.int64(0)
    for p in range(edges.shape[2]):
        most = max(most, edges[1, k, p] - edges[0, k, p])
    return most


@jit(parallel=True)
def _backward_kernel(dx, found, dy, argmax, picture, bins):
    for task in prange(found.shape[0]):
        _gather_planes(np.int64(task), dx, found, dy, argmax, picture, bins)


@jit
def _gather_planes(task, dx, found, dy, argmax, picture, bins):
    """Add up the gradients of a few planes of one picture, RoI after RoI; note the lowest and the highest place.

    The places of a RoI are looked through before any is used: nothing is written beyond a plane.
    """
    channels, cells = dx.shape[1], dx.shape[2]
    tasks = (channels + _PLANES - 1) // _PLANES
    n, start = task // tasks, task % tasks * _PLANES
    planes = min(_PLANES, channels - start)
    dx[n, start : start + planes] = 0
    lowest, highest = np.int32(cells), np.int32(-1)
    for k in range(picture.size):
        if k + _AHEAD < picture.size and picture[k + _AHEAD] == n:
            following = ((k + _AHEAD) * channels + start) * bins
            for i in range(following, following + planes * bins, _LINE):
                fetch(dy, argmax, i)
        if picture[k] == n:
            piece = slice((k * channels + start) * bins, (k * channels + start + planes) * bins)
            low, high = _extremes(argmax[piece])
            lowest, highest = min(lowest, low), max(highest, high)
            if low >= -1 and high < cells:
                for c in range(planes):
                    part = slice(piece.start + c * bins, piece.start + (c + 1) * bins)
                    _add_plane(dx[n, start + c], dy[part], argmax[part])
    found[task, 0], found[task, 1] = lowest, highest


@jit
def _extremes(places):
    lowest, highest = places[0], places[0]
    for i in range(places.size):
        lowest, highest = min(lowest, places[i]), max(highest, places[i])
    return lowest, highest


@jit
def _add_plane(total, dy, places):
    """Add each gradient to its place, if it has one."""
    for b in range(dy.size):
        if places[b] >= 0:
            # unsigned: nobody looks whether it counts from the end
            total[np.uint64(places[b])] += dy[b]
