"""Rung 2 of roi_align: coordinates and weights once per box."""

import numpy as np

from kernels.jit import jit
from kernels.ladder.roi_align.sampling import neighbours, on_map, place_box, prepare, sample


def roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Average with tables of cells and weights, made once per box.

    Changes: before it looks at any channel, a box makes two tables, one per axis: which cells each bin reads, and with
    which weights ("taps"). A bin is then the sum over its rows and columns of weight times weight times cell.

    Why: samples form a grid and interpolation is linear along each axis, so a cell's weight is a product of one weight
    per axis. Tables of 7 bins with 4 taps each serve 256 channels of 49 bins with 16 cells each.

    Measured: 0.5 GFLOP/s. What is left is a sum of numbers from scattered places, one at a time. Parameters: see
    `kernels.ladder.roi_align`.
    """
    y, *arguments = prepare(x, rois, output_size, spatial_scale, sampling_ratio, aligned)
    _taps_kernel(y, *arguments)
    return y


@jit
def taps_along(low, high, bins, size, spatial_scale, sampling_ratio, aligned):
    """Return how many taps each bin of a box has along one axis, their cells and their weights."""
    start, bin_size, grid = place_box(low, high, bins, spatial_scale, sampling_ratio, aligned)
    T = type(low)
    count = np.zeros(bins, np.int64)
    cells, weights = np.empty((bins, 2 * grid), np.int64), np.empty((bins, 2 * grid), type(low))
    for p in range(bins):
        for i in range(grid):
            place = sample(start, bin_size, grid, p, i)
            if on_map(place, size):
                cell0, cell1, weight0, weight1 = neighbours(place, size)
                t = count[p]
                cells[p, t], cells[p, t + 1] = cell0, cell1
                weights[p, t], weights[p, t + 1] = weight0 / T(grid), weight1 / T(grid)
                count[p] += 2
    return count, cells, weights


@jit
def _taps_kernel(y, x, rois, spatial_scale, sampling_ratio, aligned):
    K, C, oH, oW = y.shape
    H, W = x.shape[2:]
    how = spatial_scale, sampling_ratio, aligned
    for k in range(K):
        n = int(rois[k, 0])
        y_count, y_cells, y_weights = taps_along(rois[k, 2], rois[k, 4], oH, H, *how)
        x_count, x_cells, x_weights = taps_along(rois[k, 1], rois[k, 3], oW, W, *how)
        for c in range(C):
            for py in range(oH):
                for px in range(oW):
                    total = np.float64(0)
                    for i in range(y_count[py]):
                        line, weight = x[n, c, y_cells[py, i]], y_weights[py, i]
                        for j in range(x_count[px]):
                            total += weight * x_weights[px, j] * line[x_cells[px, j]]
                    y[k, c, py, px] = total
