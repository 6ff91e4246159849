"""RoIAlign. The taps of every RoI are tabulated once for all channels; then vectors run along the channels.

Forward: the feature map is turned so that the channels of a cell lie side by side. One task computes one RoI, adding up
weighted rows of channels.

Backward: one task computes some neighbouring channels of one picture, turned in the same way, and adds all of its RoIs
in order. No two tasks write to the same cell, and the sums do not depend on the number of threads.
"""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import flat
from kernels.cpu.channels_last import channels_last, turn_bins
from kernels.cpu.roi_taps import tabulate
from kernels.jit import RELAXED, jit

#: Channels of a task of the backward pass.
_CHANNELS = 64
#: Channels between rows of a scratch array whose size would else be a power of two, so that a column's rows fall on
#: different places of the cache.
_SPARE = 16


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
    y = np.empty((len(rois), c, oh, ow), x.dtype)
    if y.size:
        rows, columns = tabulate(rois, (h, w), (oh, ow), scale, ratio, aligned)
        first = rois[:, 0].astype(np.int64) * (h * w)
        _forward_kernel(y.reshape(len(rois), c, oh * ow), channels_last(x), first, w, *rows, *columns)
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
    dx = np.empty(input_shape, dy.dtype)
    rows, columns = tabulate(rois, (h, w), (oh, ow), scale, ratio, aligned)
    picture = rois[:, 0].astype(np.int64)
    _backward_kernel(dx.reshape(n, c, h * w), flat(dy), picture, w, *rows, *columns)
    return dx


@jit(parallel=True)
def _forward_kernel(y, x, first, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight):
    for k in prange(y.shape[0]):
        _pool_roi(
            y[k], x, first[k], width, y_count[k], y_cell[k], y_weight[k], x_count[k], x_cell[k], x_weight[k]
        )  # fmt: skip


@jit
def _pool_roi(y, x, first, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight):
    """Compute one RoI; the map's rows of channels begin at ``first``."""
    channels, columns = y.shape[0], x_count.size
    bins = np.zeros((y.shape[1], channels + _SPARE), y.dtype)
    for py in range(y_count.size):
        for px in range(columns):
            total = bins[py * columns + px, :channels]
            for i in range(y_count[py]):
                row = first + y_cell[py, i] * width
                _add_row(total, x, row, y_weight[py, i], x_cell[px], x_weight[px], x_count[px])
    turn_bins(y, bins)


@jit(fastmath=RELAXED)
def _add_row(total, x, row, weight, cell, x_weight, count):
    """Add the taps of one row to ``total``, four at a time: each pass reads and writes the total once."""
    j = 0
    while j + 4 <= count:
        a, b, c, d = x[row + cell[j]], x[row + cell[j + 1]], x[row + cell[j + 2]], x[row + cell[j + 3]]
        wa, wb = weight * x_weight[j], weight * x_weight[j + 1]
        wc, wd = weight * x_weight[j + 2], weight * x_weight[j + 3]
        for i in range(total.size):
            total[i] += wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]
        j += 4
    while j + 2 <= count:
        a, b = x[row + cell[j]], x[row + cell[j + 1]]
        wa, wb = weight * x_weight[j], weight * x_weight[j + 1]
        for i in range(total.size):
            total[i] += wa * a[i] + wb * b[i]
        j += 2
    if j < count:
        a, wa = x[row + cell[j]], weight * x_weight[j]
        for i in range(total.size):
            total[i] += wa * a[i]


@jit(parallel=True)
def _backward_kernel(dx, dy, picture, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight):
    for task in prange(dx.shape[0] * ((dx.shape[1] + _CHANNELS - 1) // _CHANNELS)):
        _gather_channels(
            np.int64(task), dx, dy, picture, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight
        )  # fmt: skip


@jit
def _gather_channels(task, dx, dy, picture, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight):
    """Add up the gradients of some channels of one picture, RoI after RoI."""
    blocks = (dx.shape[1] + _CHANNELS - 1) // _CHANNELS
    n, start = task // blocks, task % blocks * _CHANNELS
    channels = min(_CHANNELS, dx.shape[1] - start)
    bins = y_count.shape[1] * x_count.shape[1]
    total = np.zeros((dx.shape[2], channels), dx.dtype)
    turned = np.empty((bins, channels + _SPARE), dx.dtype)
    for k in range(picture.size):
        if picture[k] == n:
            for c in range(channels):
                base = (k * dx.shape[1] + start + c) * bins
                for b in range(bins):
                    turned[b, c] = dy[base + b]
            _spread_roi(
                total, turned, width, y_count[k], y_cell[k], y_weight[k], x_count[k], x_cell[k], x_weight[k]
            )  # fmt: skip
    turn_bins(dx[n, start : start + channels], total)


@jit(fastmath=RELAXED)
def _spread_roi(total, dy, width, y_count, y_cell, y_weight, x_count, x_cell, x_weight):
    """Add the gradient of one RoI, (bins, channels), to the cells that it averages."""
    channels, columns = total.shape[1], x_count.size
    for py in range(y_count.size):
        for i in range(y_count[py]):
            row = y_cell[py, i] * width
            for px in range(columns):
                source = dy[py * columns + px]
                for j in range(x_count[px]):
                    weight = y_weight[py, i] * x_weight[px, j]
                    target = total[row + x_cell[px, j]]
                    for c in range(channels):
                        target[c] += weight * source[c]
