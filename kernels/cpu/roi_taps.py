"""Which cells each bin of RoIAlign averages, with which weights: one table per axis, good for all channels.

The weight of a cell is a product of one weight per axis, because samples form a grid and interpolation is linear along
each axis. So a bin is a short list of rows and a short list of columns ("taps"), each with a weight; samples between
the same two cells are merged. Taps are in rising order, so that their sums do not depend on the kind of box.

One task tabulates one RoI. Everything that decides where a sample falls is rounded in the type of the boxes.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels import scalar_math
from kernels.cpu.blocks import flat
from kernels.jit import jit

_sample = jit(scalar_math.roi_sample)

#: An axis with more samples than this gives 0: the few on the map vanish in the mean.
_MOST_SAMPLES = 2.0**62


class Taps(NamedTuple):
    """Taps along one axis: how many each bin of each RoI has, their cells and their weights; and where all of them are.

    ``span`` holds the first cell that a RoI touches, and the one after its last.
    """

    span: np.ndarray  # (K, 2)
    length: np.ndarray  # (K, bins)
    cell: np.ndarray  # (K, bins, most)
    weight: np.ndarray  # (K, bins, most), which sum to 1 where all samples lie on the map


def tabulate(rois, map_size, output_size, spatial_scale, sampling_ratio, aligned):
    """Return the taps along the vertical and the horizontal axis."""
    return tuple(
        _tabulate_axis(rois, 2 - axis, map_size[axis], output_size[axis], spatial_scale, sampling_ratio, aligned)
        for axis in (0, 1)
    )


def _tabulate_axis(rois, column, size, bins, spatial_scale, sampling_ratio, aligned):
    """Return the taps between columns ``column`` and ``column + 2`` of ``rois``."""
    k = len(rois)
    grid = sampling_ratio
    if grid <= 0:
        largest = np.abs(rois[:, column + 2].astype(np.float64) - rois[:, column]).max(initial=0) * float(spatial_scale)
        grid = math.ceil(max(largest, 1) / bins) + 1
    most = min(size, 2 * grid)
    shape = (k, bins, most)
    taps = Taps(
        np.empty((k, 2), np.int64),
        np.empty((k, bins), np.int64),
        np.empty(shape, np.int64),
        np.empty(shape, rois.dtype),
    )
    if k:
        _tabulate_kernel(*taps, flat(rois), column, size, spatial_scale, sampling_ratio, aligned)
    return taps


@jit(parallel=True)
def _tabulate_kernel(span, count, cell, weight, rois, column, size, spatial_scale, sampling_ratio, aligned):
    for k in prange(span.shape[0]):
        _tabulate_roi(
            np.int64(k), span, count, cell, weight, rois, column, size, spatial_scale, sampling_ratio, aligned
        )  # fmt: skip


@jit
def _tabulate_roi(k, span, count, cell, weight, rois, column, size, spatial_scale, sampling_ratio, aligned):
    """Tabulate the bins of one RoI."""
    T = rois.dtype.type
    bins = count.shape[1]
    offset = T(0.5 if aligned else 0.0)
    start = rois[5 * k + column] * spatial_scale - offset
    extent = rois[5 * k + column + 2] * spatial_scale - offset - start
    if not aligned:
        extent = max(extent, T(1))
    bin_size = extent / T(bins)
    samples = np.float64(sampling_ratio) if sampling_ratio > 0 else np.float64(np.ceil(bin_size))
    grid = np.int64(samples) if samples <= _MOST_SAMPLES else np.int64(0)
    low, end = size, np.int64(0)
    for p in range(bins):
        count[k, p] = _tabulate_bin(cell[k, p], weight[k, p], start, bin_size, grid, p, size)
        if count[k, p] > 0:
            low, end = min(low, cell[k, p, 0]), max(end, cell[k, p, count[k, p] - 1] + 1)
    span[k, 0], span[k, 1] = min(low, end), end


@jit
def _tabulate_bin(cell, weight, start, bin_size, grid, p, size):
    """Write the taps of one bin; return how many."""
    T = type(start)
    i = _samples_below(start, bin_size, grid, p, T(-1), False)
    end = _samples_below(start, bin_size, grid, p, T(size), True)
    count = 0
    while i < end:
        place = _rising_sample(start, bin_size, grid, p, i)
        following = i + 1
        if following < end and _rising_sample(start, bin_size, grid, p, following) == place:
            # rounding puts many samples of a huge box at one place
            following = min(end, _samples_below(start, bin_size, grid, p, place, True))
        share = T(np.float64(following - i) / np.float64(grid))
        i = following
        place = min(max(place, T(0)), T(size - 1))
        first = np.int64(place)
        fraction = place - T(first)
        count = _add_tap(cell, weight, count, first, share * (T(1) - fraction))
        # the last cell has no neighbour: its own weight is already whole
        if first + 1 < size:
            count = _add_tap(cell, weight, count, first + 1, share * fraction)
    return count


@jit
def _add_tap(cell, weight, count, at, value):
    """Add to the tap of cell ``at``, one of the last two, or append one; return how many there are."""
    if count > 0 and cell[count - 1] == at:
        weight[count - 1] += value
    elif count > 1 and cell[count - 2] == at:
        weight[count - 2] += value
    else:
        cell[count], weight[count] = at, value
        count += 1
    return count


@jit
def _rising_sample(start, bin_size, grid, p, i):
    """Return where sample ``i`` lies, counted from the lowest: those of a reversed box from the end."""
    return _sample(start, bin_size, grid, p, i if bin_size >= 0 else grid - 1 - i)


@jit
def _samples_below(start, bin_size, grid, p, limit, included):
    """Return how many samples of a bin, counted from the lowest, lie below ``limit``, or at most there: bisection."""
    low, high = np.int64(0), grid
    while low < high:
        middle = low + (high - low) // 2
        place = _rising_sample(start, bin_size, grid, p, middle)
        if place < limit or (included and place == limit):
            low = middle + 1
        else:
            high = middle
    return low
