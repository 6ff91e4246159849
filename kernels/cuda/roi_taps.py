"""Which cells each bin of RoIAlign averages, with which weights: a table for all channels, made before all else.

The weight of a cell is a product of one weight per axis, because samples form a grid and interpolation is linear along
each axis. So a bin is a short list of rows and a short list of columns ("taps"), each with a weight, in rising order;
samples between the same two cells are merged. Four samples of a bin touch sixteen cells, if each reads its own four,
and often only nine different ones.

One thread tabulates one bin along one axis: of a RoI with oH x oW bins, bins 0 to oH - 1 are those of the vertical
axis, the rest those of the horizontal one. In the tables bins are the last axis, as neighbouring threads read
neighbouring bins. Everything that decides where a sample falls is rounded in the type of the boxes, product by product.
"""

import math
from typing import NamedTuple

import numpy as np
from numba.types import float64, int32, int64

from kernels.checks.arguments import is_on_device
from kernels.cuda import verdicts
from kernels.cuda.array import DeviceArray, empty
from kernels.cuda.device import cuda, device_function, rounded_product, typed_kernel

#: An axis with more samples than this gives 0: the few on the map vanish in the mean.
_MOST_SAMPLES = 2.0**62


class Taps(NamedTuple):
    """The taps of all bins along both axes: B = oH + oW bins of each RoI.

    Attributes
    ----------
    length : DeviceArray of int32, shape (K, B)
        Taps of each bin.
    first, after : DeviceArray of int32, shape (K, B)
        First cell that each bin touches, and the one after its last; an empty range for a bin without taps.
    cell : DeviceArray of int32, shape (K, most, B)
        The cells.
    weight : DeviceArray, shape (K, most, B)
        Their weights, which sum to 1 where all samples of a bin lie on the map.
    """

    length: DeviceArray
    first: DeviceArray
    after: DeviceArray
    cell: DeviceArray
    weight: DeviceArray

    @property
    def most(self):
        """The most taps that a bin has room for."""
        return self.cell.shape[1]

    @property
    def raw(self):
        """What kernels take."""
        return tuple(table.raw for table in self)


def largest_bins(check, rois, pictures, output_size, spatial_scale, sampling_ratio, aligned):
    """Return how many cells the largest bins have, vertically and horizontally; RoIs on the device are checked too."""
    if is_on_device(rois):
        how = {"scale": spatial_scale, "bins": output_size, "reversible": sampling_ratio > 0 or not aligned}
        return verdicts.rois(check, rois, pictures, **how)
    sizes = np.abs(rois[:, 3:].astype(np.float64) - rois[:, 1:3]).max(axis=0, initial=0) * float(spatial_scale)
    return tuple(math.ceil(size / bins) + 1 for size, bins in zip(sizes[::-1], output_size, strict=True))


def tabulate(rois, largest, map_size, output_size, spatial_scale, sampling_ratio, aligned):
    """Return the taps of RoIs on the device, whose largest bins have ``largest`` cells.

    Parameters
    ----------
    rois : DeviceArray, shape (K, 5)
        Batch index and corners.
    largest : (int, int)
        What `largest_bins` returned.
    map_size, output_size : (int, int)
        Cells of the map, and bins.
    spatial_scale, sampling_ratio, aligned
        As given to ``roi_align_forward``; the scale of the RoIs' type.

    Returns
    -------
    Taps
    """
    samples = [sampling_ratio if sampling_ratio > 0 else max(cells, 2) for cells in largest]
    most = max(min(size, 2 * grid) for size, grid in zip(map_size, samples, strict=True))
    k, bins = len(rois), sum(output_size)
    length, first, after = (empty((k, bins), np.int32) for _ in range(3))
    taps = Taps(length, first, after, empty((k, most, bins), np.int32), empty((k, most, bins), rois.dtype))
    _tabulate_kernel.over(
        k * bins, *taps.raw, rois.raw, k, most, *output_size, *map_size, spatial_scale, sampling_ratio, int(aligned)
    )
    return taps


def _sampling(T):
    """Return the functions for type T that tell where samples lie, and how many of them lie below a limit."""
    times = rounded_product(T)

    @device_function
    def place_of(origin, bin_size, grid, i):
        """Return where sample ``i`` of a bin lies, counted from the lowest: those of a reversed box from the end."""
        number = i if bin_size >= 0 else grid - 1 - i
        return origin + times(T(number) + T(0.5), bin_size) / T(grid)

    @device_function
    def samples_below(origin, bin_size, grid, limit, included):
        """Return how many samples of a bin, from the lowest, lie below ``limit``, or at most there: bisection."""
        low, high = int64(0), int64(grid)
        while low < high:
            middle = low + (high - low) // 2
            place = place_of(origin, bin_size, grid, middle)
            if place < limit or (included and place == limit):
                low = middle + 1
            else:
                high = middle
        return low

    return place_of, samples_below


@device_function
def _add_tap(cell, weight, base, step, count, most, at, value):
    """Add to the tap of cell ``at``, one of the last two, or append one; return how many there are."""
    last = base + (count - 1) * step
    if count > 0 and cell[last] == at:
        weight[last] += value
    elif count > 1 and cell[last - step] == at:
        weight[last - step] += value
    elif count < most:  # always: but nothing is ever written elsewhere
        cell[last + step], weight[last + step] = at, value
        count += 1
    return count


@typed_kernel(
    lambda T: (
        int32[::1],
        int32[::1],
        int32[::1],
        int32[::1],
        T[::1],
        T[::1],
        int64,
        int64,
        int64,
        int64,
        int64,
        int64,
        T,
        int64,
        int64,
    )  # fmt: skip
)
def _tabulate_kernel(T):
    times = rounded_product(T)
    place_of, samples_below = _sampling(T)

    def tabulate_kernel(
        length, first, after, cell, weight, rois, K, most, down, across, height, width, spatial_scale, ratio, aligned
    ):  # fmt: skip
        B = down + across
        for task in range(cuda.grid(1), K * B, cuda.gridsize(1)):
            k, b = task // B, task % B
            column, p, bins, size = (2, b, down, height) if b < down else (1, b - down, across, width)
            offset = T(0.5) if aligned else T(0)
            start = times(rois[5 * k + column], spatial_scale) - offset
            extent = times(rois[5 * k + column + 2], spatial_scale) - offset - start
            if not aligned:
                extent = max(extent, T(1))
            bin_size = extent / T(bins)
            origin = start + times(T(p), bin_size)
            grid = int64(ratio)
            if ratio <= 0:
                grid = int64(math.ceil(bin_size)) if bin_size <= _MOST_SAMPLES else int64(0)
            elif ratio > _MOST_SAMPLES:
                grid = int64(0)
            i = samples_below(origin, bin_size, grid, T(-1), False)
            end = samples_below(origin, bin_size, grid, T(size), True)
            base, taps, beyond = k * most * B + b, int64(0), int64(0)
            while i < end:
                place = place_of(origin, bin_size, grid, i)
                following = i + 1
                if following < end and place_of(origin, bin_size, grid, following) == place:
                    # rounding puts many samples of a huge box at one place
                    following = min(end, samples_below(origin, bin_size, grid, place, True))
                share = T(float64(following - i) / float64(grid))
                i = following
                place = min(max(place, T(0)), T(size - 1))
                low = int64(place)
                fraction = place - T(low)
                taps = _add_tap(cell, weight, base, B, taps, most, low, share * (T(1) - fraction))
                beyond = low + 1
                # the last cell has no neighbour: its own weight is already whole
                if low + 1 < size:
                    taps = _add_tap(cell, weight, base, B, taps, most, low + 1, share * fraction)
                    beyond = low + 2
            length[task] = taps
            first[task] = cell[base] if taps else 0
            after[task] = beyond

    return tabulate_kernel
