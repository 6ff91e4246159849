"""Rung 3 of roi_align: the channels of a cell side by side."""

import numpy as np

from kernels.jit import RELAXED, jit
from kernels.ladder.roi_align.rung2_taps import taps_along
from kernels.ladder.roi_align.sampling import prepare


def roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Average whole rows of channels.

    Changes: the map is turned from (channel, cell) to (cell, channel) once, and the loop over channels moves inside.
    Each tap adds a row of channels, times one weight, to the bin's row of sums. At the end, the bins of the box are
    turned back.

    Why: all channels of a cell have the same weight and now lie side by side, so that one vector instruction handles 8
    or 16 of them, and every cache line that is fetched is used to its end.

    Measured: 5 GFLOP/s, turning included. Parameters: see `kernels.ladder.roi_align`.
    """
    y, x, *arguments = prepare(x, rois, output_size, spatial_scale, sampling_ratio, aligned)
    _channels_last_kernel(y, np.ascontiguousarray(x.transpose(0, 2, 3, 1)), *arguments)
    return y


@jit
def _channels_last_kernel(y, x, rois, spatial_scale, sampling_ratio, aligned):
    for k in range(y.shape[0]):
        pool_box(y[k], x, rois[k], spatial_scale, sampling_ratio, aligned)


@jit
def pool_box(y, x, roi, spatial_scale, sampling_ratio, aligned):
    """Compute the bins of one box, (C, oH, oW), from maps (N, H, W, C)."""
    C, oH, oW = y.shape
    how = spatial_scale, sampling_ratio, aligned
    n = int(roi[0])
    y_count, y_cells, y_weights = taps_along(roi[2], roi[4], oH, x.shape[1], *how)
    x_count, x_cells, x_weights = taps_along(roi[1], roi[3], oW, x.shape[2], *how)
    bins = np.zeros((oH, oW, C), y.dtype)
    for py in range(oH):
        for px in range(oW):
            for i in range(y_count[py]):
                for j in range(x_count[px]):
                    cell = x[n, y_cells[py, i], x_cells[px, j]]
                    _add_cell(bins[py, px], cell, y_weights[py, i] * x_weights[px, j])
    turn_bins(y, bins)


@jit(fastmath=RELAXED)
def _add_cell(total, cell, weight):
    for c in range(total.size):
        total[c] += weight * cell[c]


@jit
def turn_bins(y, bins):
    """Write ``bins``, (oH, oW, C), to ``y``, (C, oH, oW)."""
    for c in range(y.shape[0]):
        for py in range(y.shape[1]):
            for px in range(y.shape[2]):
                y[c, py, px] = bins[py, px, c]
