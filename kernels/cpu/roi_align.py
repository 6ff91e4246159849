"""RoIAlign. The taps of every RoI are tabulated once for all channels; then vectors run along the channels.

Forward: the feature map is turned so that the channels of a cell lie side by side. One task computes one RoI, adding up
weighted rows of channels. With few channels vectors run along the rows of the map instead, which stays as it is: one
task blends the rows of one RoI, then picks the columns.

Backward: one task computes some neighbouring channels of one picture, turned in the same way, and adds all of its RoIs
in order. No two tasks write to the same cell, and the sums do not depend on the number of threads.
"""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu import memory
from kernels.cpu.blocks import flat
from kernels.cpu.channels_last import cells_of, channel_parts, channels_last, groups_of, touched_groups, transpose
from kernels.cpu.native import native
from kernels.cpu.roi_taps import tabulate
from kernels.jit import RELAXED, jit

#: Channels of a task of the backward pass.
_CHANNELS = 64
#: Channels between rows of a scratch array whose size would else be a power of two, so that a column's rows fall on
#: different places of the cache.
_SPARE = 16
#: Up to so many channels the map is not turned.
_FEW = 8


def roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Average interpolated samples over each bin of each box.

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
    sampling_ratio : int
        Samples per bin and axis; 0 or less for as many as the bin has cells, rounded up.
    aligned : bool
        Whether half a cell is subtracted from the scaled corners.

    Returns
    -------
    ndarray, (K, C, oH, oW)
        Output.

    Raises
    ------
    TypeError
        If ``x`` or ``rois`` is not an array of float32 or float64, their types differ, or ``aligned`` is no bool.
    ValueError
        If a shape or parameter does not fit, a coordinate is not finite, a batch index is not that of a picture, or
        a box is reversed with ``aligned=True`` and adaptive sampling.

    Notes
    -----
    As ``torchvision.ops.roi_align``. What is computed says ``kernels.naive.roi_align``.
    """
    x, rois, (oh, ow), scale, ratio, aligned = checks.roi_align(
        x, rois, output_size, spatial_scale, sampling_ratio, aligned
    )
    n, c, h, w = x.shape
    y = memory.empty((len(rois), c, oh, ow), x.dtype)
    if y.size:
        rows, columns = tabulate(rois, (h, w), (oh, ow), scale, ratio, aligned)
        picture = rois[:, 0].astype(np.int64)
        if c <= _FEW:
            _rows_kernel(y, x.reshape(n * c * h, w), picture * (c * h), h, *rows, *columns)
            return y
        one_roi = [table[0] for table in (*rows[1:], *columns[1:])]
        groups = touched_groups(picture, rows.span, columns.span, x.shape)
        for part in channel_parts(x.shape, x.itemsize):
            channels = part.stop - part.start
            turned = channels_last(x, groups, part).reshape(-1, channels)
            pool_roi = native(_pool_roi, x.dtype, (y.reshape(-1), 0, turned, 0, w, *one_roi))
            first = picture * (h * w)
            _forward_kernel(pool_roi, y.reshape(-1), part.start, c, turned, first, w, *rows[1:], *columns[1:])
    return y


def roi_align_backward(dy, rois, input_shape, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Return the gradient of the feature maps.

    Parameters
    ----------
    dy : ndarray, (K, C, oH, oW), float32 or float64
        Gradient of the output.
    rois : ndarray, (K, 5)
        As given to ``roi_align_forward``.
    input_shape : tuple of int
        (N, C, H, W) of the feature maps.
    spatial_scale, sampling_ratio, aligned
        As given to ``roi_align_forward``.

    Returns
    -------
    ndarray, (N, C, H, W)
        Gradient of the feature maps.

    Raises
    ------
    TypeError, ValueError
        As in ``roi_align_forward``.
    """
    dy, rois, input_shape, scale, ratio, aligned = checks.roi_align_gradient(
        dy, rois, input_shape, spatial_scale, sampling_ratio, aligned
    )
    n, c, h, w = input_shape
    oh, ow = dy.shape[2:]
    if not dy.size:
        return np.zeros(input_shape, dy.dtype)
    dx = memory.empty(input_shape, dy.dtype)
    rows, columns = tabulate(rois, (h, w), (oh, ow), scale, ratio, aligned)
    picture = rois[:, 0].astype(np.int64)
    groups = touched_groups(picture, rows.span, columns.span, input_shape)
    ends = np.searchsorted(groups, np.arange(n + 1) * groups_of(h * w))
    arguments = dx.reshape(-1), flat(dy), (n, c, h * w), groups, ends, picture, w, *rows[1:], *columns[1:]
    _backward_kernel(native(_gather_channels, dy.dtype, (0, *arguments)), *arguments)
    return dx


@jit(parallel=True)
def _forward_kernel(
    pool_roi, y, start, channels, x, first, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight
):
    bins = y_count.shape[1] * x_count.shape[1]
    for k in prange(first.size):
        pool_roi(
            y, (np.int64(k) * channels + start) * bins, x, first[k], width,
            y_count[k], y_cell[k], y_weight[k], x_count[k], x_cell[k], x_weight[k],
        )  # fmt: skip


@jit
def _pool_roi(y, y_start, x, first, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight):
    """Compute one RoI; the map's rows of channels begin at ``first``."""
    channels, columns = x.shape[1], x_count.size
    step = channels + _SPARE
    bins = np.zeros(y_count.size * columns * step, y.dtype)
    for py in range(y_count.size):
        for px in range(columns):
            start = (py * columns + px) * step
            total = bins[start : start + channels]
            for i in range(y_count[py]):
                row = first + y_cell[py, i] * width
                _add_rows(total, x, row, 0, y_weight[py, i], x_cell[px], x_weight[px], x_count[px])
    transpose(y, y_start, y_count.size * columns, bins, 0, step, y_count.size * columns, channels)


@jit(fastmath=RELAXED)
def _add_rows(total, x, base, column, factor, cell, weight, count):
    """Add ``factor * weight[j]`` times row ``base + cell[j]`` of x, from ``column`` on, to ``total``, for each tap j.

    Four at a time: each pass reads and writes the total once.
    """
    end = column + total.size
    j = 0
    while j + 4 <= count:
        a, b = x[base + cell[j], column:end], x[base + cell[j + 1], column:end]
        c, d = x[base + cell[j + 2], column:end], x[base + cell[j + 3], column:end]
        wa, wb = factor * weight[j], factor * weight[j + 1]
        wc, wd = factor * weight[j + 2], factor * weight[j + 3]
        for i in range(total.size):
            total[i] += wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]
        j += 4
    while j + 2 <= count:
        a, b = x[base + cell[j], column:end], x[base + cell[j + 1], column:end]
        wa, wb = factor * weight[j], factor * weight[j + 1]
        for i in range(total.size):
            total[i] += wa * a[i] + wb * b[i]
        j += 2
    if j < count:
        a, wa = x[base + cell[j], column:end], factor * weight[j]
        for i in range(total.size):
            total[i] += wa * a[i]


@jit(parallel=True)
def _rows_kernel(
    y, x, first, height, y_span, y_count, y_cell, y_weight, x_span, x_count, x_cell, x_weight
):  # fmt: skip
    for k in prange(y.shape[0]):
        _blend_rows(
            y[k], x, first[k], height, y_count[k], y_cell[k], y_weight[k], x_span[k], x_count[k], x_cell[k], x_weight[k]
        )  # fmt: skip


@jit(fastmath=RELAXED)
def _blend_rows(y, x, first, height, y_count, y_cell, y_weight, x_span, x_count, x_cell, x_weight):
    """Compute one RoI from rows of the map, those of its first channel from ``first`` on."""
    low, one = x_span[0], y.dtype.type(1)
    blended = np.empty(x_span[1] - low, y.dtype)
    for c in range(y.shape[0]):
        for py in range(y_count.size):
            blended[:] = 0
            _add_rows(blended, x, first + c * height, low, one, y_cell[py], y_weight[py], y_count[py])
            for px in range(x_count.size):
                total = y.dtype.type(0)
                for j in range(x_count[px]):
                    total += x_weight[px, j] * blended[x_cell[px, j] - low]
                y[c, py, px] = total


@jit(parallel=True)
def _backward_kernel(
    gather_channels, dx, dy, size, groups, ends, picture, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight
):  # fmt: skip
    for task in prange(size[0] * ((size[1] + _CHANNELS - 1) // _CHANNELS)):
        gather_channels(
            np.int64(task), dx, dy, size, groups, ends, picture, width,
            y_count, y_cell, y_weight, x_count, x_cell, x_weight,
        )  # fmt: skip


@jit
def _gather_channels(
    task, dx, dy, size, groups, ends, picture, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight
):  # fmt: skip
    """Add up the gradients of some channels of one picture, RoI after RoI, in the groups of cells that these touch."""
    _, all_channels, cells = size
    blocks = (all_channels + _CHANNELS - 1) // _CHANNELS
    n, start = task // blocks, task % blocks * _CHANNELS
    channels = min(_CHANNELS, all_channels - start)
    step, bins = channels + _SPARE, y_count.shape[1] * x_count.shape[1]
    total, turned = np.empty(cells * channels, dx.dtype), np.empty(bins * step, dx.dtype)
    for i in range(ends[n], ends[n + 1]):
        _, cell, count = cells_of(groups[i], cells)
        total[cell * channels : (cell + count) * channels] = 0
    for k in range(picture.size):
        if picture[k] == n:
            transpose(turned, 0, step, dy, (k * all_channels + start) * bins, bins, channels, bins)
            _spread_roi(
                total, channels, turned, step, width,
                y_count[k], y_cell[k], y_weight[k], x_count[k], x_cell[k], x_weight[k],
            )  # fmt: skip
    first = (n * all_channels + start) * cells
    dx[first : first + channels * cells] = 0
    for i in range(ends[n], ends[n + 1]):
        _, cell, count = cells_of(groups[i], cells)
        transpose(dx, first + cell, cells, total, cell * channels, channels, count, channels)


@jit(fastmath=RELAXED)
def _spread_roi(total, channels, dy, step, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight):
    """Add the gradient of one RoI, rows of channels ``step`` apart, to the cells that it averages."""
    columns = x_count.size
    for py in range(y_count.size):
        for i in range(y_count[py]):
            row = y_cell[py, i] * width
            for px in range(columns):
                start = (py * columns + px) * step
                source = dy[start : start + channels]
                for j in range(x_count[px]):
                    weight = y_weight[py, i] * x_weight[px, j]
                    start = (row + x_cell[px, j]) * channels
                    target = total[start : start + channels]
                    for c in range(channels):
                        target[c] += weight * source[c]
