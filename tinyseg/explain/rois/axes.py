"""Where the RoI operators look along one axis: both axes of a box are worked out alike and apart.

All arithmetic is that of the naive kernels, in the type of the map and in their order: the trace that is made of it is
compared with them bit for bit.
"""

from typing import NamedTuple

import numpy as np

#: An axis with more samples than this gives 0, as in the kernels: the few on the map vanish in the mean.
MOST_SAMPLES = 2.0**62
#: Up to so many samples of an axis are listed whether they lie on the map or not; of more, those on the map alone.
LISTED = 128


class PoolAxis(NamedTuple):
    """The cells of RoIPool's bins along one axis.

    Attributes
    ----------
    start, end : float
        The rounded corners: the first cell of the box and its last, which belongs to it.
    size : float
        Cells of the box, at least 1.
    bin_size : floating
        ``size / bins``, in the type of the map.
    first, stop : ndarray of float64, shape (bins,)
        The first cell of each bin, and the one after its last, wherever the map ends.
    low, high : ndarray of int, shape (bins,)
        The same within the map. A bin with ``high <= low`` has no cells.
    """

    start: float
    end: float
    size: float
    bin_size: np.floating
    first: np.ndarray
    stop: np.ndarray
    low: np.ndarray
    high: np.ndarray


class SampleAxis(NamedTuple):
    """The samples of RoIAlign's or crop_and_resize's bins along one axis.

    Places are in feature cells; a cell's centre is at its whole number. Arrays of shape (bins, most) have one number
    for each sample, in the order in which they are taken. Samples of a bin that rounding, or a box without size, puts
    at one place are one entry.

    Attributes
    ----------
    start, size, bin_size : floating
        Of the box and its bins, as the operator moved it; ``bin_size`` is crop_and_resize's step between samples.
    grid : int
        Samples of a bin.
    edges : ndarray, shape (bins + 1,), or None
        Where the bins begin and end; crop_and_resize's have no edges.
    first : ndarray of int, shape (bins, most)
        The number of the entry's first sample in its bin, from 0.
    times : ndarray of int, shape (bins, most)
        How many samples are here; 0 where a bin has fewer entries than others.
    place : ndarray, shape (bins, most)
        Where the sample is taken.
    on_map : ndarray of bool, shape (bins, most)
        Whether it is read; the value of others is 0.
    low, high : ndarray of int, shape (bins, most)
        The two cells around the place, moved onto the map; -1 where it is not read.
    weight_low, weight_high : ndarray, shape (bins, most)
        Their weights; 0 where it is not read.
    """

    start: np.floating
    size: np.floating
    bin_size: np.floating
    grid: int
    edges: np.ndarray | None
    first: np.ndarray
    times: np.ndarray
    place: np.ndarray
    on_map: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weight_low: np.ndarray
    weight_high: np.ndarray

    def listed(self, p):
        """Return the entries of bin ``p``, on the map and off it: an array of their numbers."""
        return np.flatnonzero(self.times[p])

    def share(self, p):
        """Return which part of the bin's samples each entry is, as float64."""
        return self.times[p].astype(np.float64) / np.float64(max(self.grid, 1))

    def weights(self, p, cells):
        """Return how much each of the axis's cells counts in the mean of bin ``p``: (cells,) float64."""
        weights, on_map = np.zeros(cells), self.on_map[p]
        for cell, weight in ((self.low, self.weight_low), (self.high, self.weight_high)):
            np.add.at(weights, cell[p, on_map], (weight[p] * self.share(p))[on_map])
        return weights


# ---- RoIPool ---------------------------------------------------------------------------------------------------------


def pool_axis(low, high, size, bins, spatial_scale):
    """Return the bins of RoIPool between two corners, in the type of the map, on an axis of ``size`` cells."""
    T = type(low)
    start, end = (float(_round(corner * spatial_scale)) for corner in (low, high))
    cells = max(end - start + 1.0, 1.0)
    bin_size = T(cells) / T(bins)
    p = np.arange(bins + 1).astype(T)
    first = start + np.floor(p[:-1] * bin_size).astype(np.float64)
    stop = start + np.ceil(p[1:] * bin_size).astype(np.float64)
    low_cell, high_cell = (np.clip(cell, 0, size).astype(np.int64) for cell in (first, stop))
    return PoolAxis(start, end, cells, bin_size, first, stop, low_cell, high_cell)


def _round(value):
    """Round to a whole number, halves away from zero."""
    whole = np.trunc(value)
    return whole + np.copysign(1, value) if abs(value - whole) >= 0.5 else whole


# ---- RoIAlign --------------------------------------------------------------------------------------------------------


def align_axis(low, high, size, bins, spatial_scale, sampling_ratio, aligned):
    """Return the samples of RoIAlign between two corners, in the type of the map, on an axis of ``size`` cells."""
    T = type(low)
    offset = T(0.5 if aligned else 0)
    start, end = low * spatial_scale - offset, high * spatial_scale - offset
    extent = end - start
    if not aligned:
        extent = max(extent, T(1))
    bin_size = extent / T(bins)
    samples = float(sampling_ratio if sampling_ratio > 0 else np.ceil(bin_size))
    grid = int(samples) if samples <= MOST_SAMPLES else 0
    samples_of = _Samples(start, bin_size, grid, bins)
    index, count = samples_of.all() if grid * bins <= LISTED else samples_of.on_map(size)
    place = samples_of.at(index)
    on_map = (count > 0) & (place >= -1) & (place <= size)
    held = np.clip(place, 0, size - 1)
    cell = held.astype(np.int64)
    edges = start + np.arange(bins + 1).astype(T) * bin_size
    around = _around(on_map, cell, np.minimum(cell + 1, size - 1), held - cell.astype(T))
    return SampleAxis(start, extent, bin_size, grid, edges, index, count, place, on_map, *around)


def _around(on_map, low, high, weight):
    """Return both cells and their weights, the second's given, with -1 and 0 off the map."""
    T = weight.dtype.type
    weights = (np.where(on_map, w, T(0)) for w in (T(1) - weight, weight))
    return *(np.where(on_map, cell, -1) for cell in (low, high)), *weights


class _Samples(NamedTuple):
    """The samples of an axis: those of a bin run one way, with the sign of its size."""

    start: np.floating
    bin_size: np.floating
    grid: int
    bins: int

    def at(self, index):
        """Return the places of samples: ``index`` has a row for each bin."""
        T = type(self.start)
        p = np.arange(self.bins).astype(T)[:, None]
        step = (index.astype(T) + T(0.5)) * self.bin_size / T(max(self.grid, 1))
        return self.start + p * self.bin_size + step

    def all(self):
        """Return index and count of all samples, those at one place taken together."""
        places = self.at(np.broadcast_to(np.arange(self.grid), (self.bins, self.grid)))
        new = np.ones(places.shape, bool)
        new[:, 1:] = places[:, 1:] != places[:, :-1]
        entry, (bin_number, sample) = np.cumsum(new, axis=1) - 1, np.nonzero(new)
        index = np.zeros((self.bins, entry.max(initial=-1) + 1), np.int64)
        count = np.zeros_like(index)
        index[bin_number, entry[new]] = sample
        count[bin_number, entry[new]] = np.diff(np.flatnonzero(new), append=new.size)
        return index, count

    def on_map(self, size):
        """Return index and count of the samples from -1 to ``size``, found by bisection as the kernels find them."""
        near, far = (size, -1) if self.bin_size < 0 else (-1, size)
        i, end = self._count(near, False), self._count(far, True)
        indices, counts = [], []
        while (i < end).any():
            following = np.minimum(end, self._count(self.at(i[:, None])[:, 0], True))
            following = np.maximum(following, i)
            indices.append(i)
            counts.append(following - i)
            i = following
        empty = np.zeros((self.bins, 0), np.int64)
        return (np.stack(a, axis=1) if a else empty for a in (indices, counts))

    def _count(self, limit, included):
        """Return for each bin how many samples come before a place, or up to it."""
        low, high = np.zeros(self.bins, np.int64), np.full(self.bins, self.grid, np.int64)
        while (low < high).any():
            middle = (low + high) // 2
            place = self.at(middle[:, None])[:, 0]
            before = (place > limit if self.bin_size < 0 else place < limit) | (included & (place == limit))
            open_ = low < high
            low, high = np.where(open_ & before, middle + 1, low), np.where(open_ & ~before, middle, high)
        return low


# ---- crop_and_resize -------------------------------------------------------------------------------------------------


def crop_axis(low, high, size, bins, spatial_scale):
    """Return the samples of crop_and_resize, one a bin, between two corners on an axis of ``size`` cells."""
    T = type(low)
    last = T(size - 1)
    low, high = low * spatial_scale / T(size), high * spatial_scale / T(size)  # 1 is the far edge of the picture
    if bins > 1:
        step = (high - low) * last / T(bins - 1)
        place = low * last + np.arange(bins).astype(T) * step
    else:
        step = (high - low) * last
        place = np.array([T(0.5) * (low + high) * last])
    on_map = (place >= 0) & (place <= last)
    held = np.where(on_map, place, T(0))
    cell = np.floor(held)
    around = _around(on_map, cell.astype(np.int64), np.ceil(held).astype(np.int64), held - cell)
    one = np.ones(bins, np.int64)
    entries = (0 * one, one, place, on_map, *around)
    return SampleAxis(low * last, (high - low) * last, step, 1, None, *(entry[:, None] for entry in entries))


# ---- both axes -------------------------------------------------------------------------------------------------------


def corners_of(columns, rows):
    """Return ``x1, y1, x2, y2`` of what the operator made of the box."""
    if isinstance(rows, PoolAxis):
        return columns.start, rows.start, columns.start + columns.size - 1, rows.start + rows.size - 1
    corners = (columns.start, rows.start, columns.start + columns.size, rows.start + rows.size)
    return tuple(map(float, corners))
