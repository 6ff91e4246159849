"""What the RoI microscope found: the numbers of each bin and sample, and as JSON."""

import json
from typing import Any, NamedTuple

import numpy as np

from tinyseg.explain import roi_json
from tinyseg.explain.roi_axes import PoolAxis

#: Where RoIPool's search for the largest value starts, in both types.
LOWEST = -float(np.finfo(np.float32).max)
#: Samples on the map that a trace holds at most.
MOST_ON_MAP = 2**22


class RoICell(NamedTuple):
    """A cell that a bin or a sample reads.

    Attributes
    ----------
    row, column : int
        Which cell.
    weight : float
        Of its value in the sample, or in RoIPool's output: 1 for the largest, 0 for the others.
    value : float
        What it holds.
    """

    row: int
    column: int
    weight: float
    value: float


class RoISample(NamedTuple):
    """A sample of RoIAlign or crop_and_resize, of one channel.

    Attributes
    ----------
    y, x : float
        Where it is taken, in feature cells; a cell's centre is at a whole number.
    on_map : bool
        Whether it is read. If not, its value is 0 and it counts in the mean all the same.
    times : int
        How many samples are here.
    cells : tuple of RoICell
        The four around it, row by row, whose weights sum to 1; at a border one may be there twice. None if not read.
    value : float
        Interpolated between them, in the map's type.
    contribution : float
        Its part of the mean: value times its share of the samples, in float64.
    """

    y: float
    x: float
    on_map: bool
    times: int
    cells: tuple
    value: float
    contribution: float


class RoITrace:
    """All that a RoI operator computes for one box: what `tinyseg.explain.roi` returns. ``print`` shows it as a table.

    Along each axis it holds the bins and samples (``rows`` is the vertical axis, ``columns`` the horizontal one);
    samples of a bin are all pairs of one of its row axis and one of its column axis, row by row.

    Parameters
    ----------
    op : {"roi_align", "roi_pool", "crop_and_resize"}
        The operator.
    features : ndarray, shape (C, H, W)
        The map that the box is pooled from.
    row : ndarray, shape (5,)
        Number of the picture, and the box in picture pixels; in the type of the map.
    spatial_scale : floating
        Feature cells per picture pixel, in the type of the map.
    output_size : (int, int)
        Bins: vertical, horizontal.
    sampling_ratio : int or None
        None for all but RoIAlign.
    aligned : bool or None
        None for all but RoIAlign.
    rows, columns : PoolAxis or SampleAxis
        The bins and samples along each axis: see `tinyseg.explain.roi_axes`.

    Attributes
    ----------
    picture : int
        Which picture of the batch the box is on.
    roi : tuple of float
        ``x1, y1, x2, y2`` as given, in picture pixels.
    scaled : tuple of float
        The same times ``spatial_scale``, in feature cells, 0 being the outer edge of the first cell.
    box : tuple of float
        What the operator makes of it: for RoIPool the first and the last column and row of cells; for RoIAlign the
        corners, half a cell off if aligned, at least one cell apart if not; for crop_and_resize the places of the
        corner samples. In feature cells, 0 being the centre of the first.
    output : ndarray, shape (C, oH, oW)
        The contributions added up in the order of the naive kernel: its output, bit for bit.
    argmax : ndarray of int32, shape (C, oH, oW), or None
        For RoIPool: where each maximum stands, ``row * W + column``, -1 where there is none.
    """

    def __init__(self, op, features, row, spatial_scale, output_size, sampling_ratio, aligned, rows, columns):
        self.op, self.features, self.picture = op, features, int(row[0])
        self.roi, self.scaled = tuple(map(float, row[1:])), tuple(map(float, row[1:] * spatial_scale))
        self.spatial_scale, self.output_size = spatial_scale, output_size
        self.sampling_ratio, self.aligned = sampling_ratio, aligned
        # one of the two classes; which one is op's affair
        self.rows: Any = rows
        self.columns: Any = columns
        self.box = _box(columns, rows)
        self.argmax: Any = None
        if op == "roi_pool":
            self.output, self.argmax = _largest(features, rows, columns)
        else:
            refuse_many(int(rows.on_map.sum()) * int(columns.on_map.sum()), f"output_size is {output_size}")
            self.output = np.stack([self._mean(py) for py in range(output_size[0])], axis=1)

    @property
    def dtype(self):
        """The type of the map, and of all arithmetic."""
        return self.features.dtype

    def samples_per_bin(self):
        """Return how many samples a bin has on each axis, on the map or off it: vertical, horizontal.

        Returns
        -------
        (int, int)
            (0, 0) for RoIPool.
        """
        return (0, 0) if self.op == "roi_pool" else (self.rows.grid, self.columns.grid)

    def cells(self, py, px, channel=0):
        """Return the cells that a bin of RoIPool compares, row by row.

        Parameters
        ----------
        py, px : int
            Which bin: row and column of the output.
        channel : int
            Whose values.

        Returns
        -------
        list of RoICell
            Empty if the bin has no cells.
        """
        self._need(("roi_pool",), "cells()")
        py, px, channel = self._place(py, px, channel)
        index, width = self.argmax[channel, py, px], self.features.shape[2]
        return [
            RoICell(y, x, float(y * width + x == index), float(self.features[channel, y, x]))
            for y in range(self.rows.low[py], self.rows.high[py])
            for x in range(self.columns.low[px], self.columns.high[px])
        ]

    def samples(self, py, px, channel=0):
        """Return the samples of a bin of RoIAlign or crop_and_resize, in the order in which they are added up.

        Samples off the map are among them where the box has few samples in all: 128 along an axis. Of larger ones,
        those on the map are all that can be listed.

        Parameters
        ----------
        py, px : int
            Which bin: row and column of the output.
        channel : int
            Whose values.

        Returns
        -------
        list of RoISample
        """
        self._need(("roi_align", "crop_and_resize"), "samples()")
        py, px, channel = self._place(py, px, channel)
        rows, columns, plane = self.rows, self.columns, self.features[channel]
        across = columns.listed(px)
        values, contributions = self.contributions(py, px, channel)
        found = []
        for n, (j, i) in enumerate((j, i) for j in rows.listed(py) for i in across):
            on_map = bool(rows.on_map[py, j] and columns.on_map[px, i])
            cells = tuple(
                RoICell(int(y[py, j]), int(x[px, i]), float(wy[py, j] * wx[px, i]), float(plane[y[py, j], x[px, i]]))
                for y, wy in ((rows.low, rows.weight_low), (rows.high, rows.weight_high))
                for x, wx in ((columns.low, columns.weight_low), (columns.high, columns.weight_high))
                if on_map
            )
            found.append(RoISample(
                float(rows.place[py, j]), float(columns.place[px, i]), on_map,
                int(rows.times[py, j] * columns.times[px, i]), cells, float(values[n]), float(contributions[n]),
            ))  # fmt: skip
        return found

    def contributions(self, py, px, channel=None):
        """Return the values of a bin's samples, and what each adds to the mean.

        Parameters
        ----------
        py, px : int
            Which bin: row and column of the output.
        channel : int, optional
            Of one channel; of all without it.

        Returns
        -------
        values : ndarray, shape (samples,) or (C, samples)
            In the map's type, in the order of `samples`.
        contributions : ndarray of float64, of the same shape
            Added up in this order and rounded to the map's type they are the output.
        """
        py, px, _ = self._place(py, px, channel or 0)
        both = (part[:, :, px, self.columns.listed(px)] for part in self.row_contributions(py))
        both = (part.reshape(len(part), -1) for part in both)
        return tuple(part if channel is None else part[channel] for part in both)

    def row_contributions(self, py):
        """Return the values of the samples of a row of bins, and what each adds to its mean.

        Parameters
        ----------
        py : int
            Row of the output.

        Returns
        -------
        values : ndarray, shape (C, samples down, oW, samples across)
            In the map's type; 0 off the map.
        contributions : ndarray of float64, of the same shape
            Added up row by row of samples, and rounded to the map's type, they are the output.
        """
        self._need(("roi_align", "crop_and_resize"), "contributions")
        py = self._place(py, 0, 0)[0]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            pairs = [self._row_of_samples(py, j) for j in self.rows.listed(py)]
        empty = np.zeros((len(self.features), 0, *self.columns.times.shape))
        values, contributions = (np.stack(part, axis=1) for part in zip(*pairs, strict=True)) if pairs else (empty,) * 2
        return values.astype(self.dtype, copy=False), contributions

    def weights(self, py, px, channel=0):
        """Return how much each cell of the map counts in an output: its derivative by the cell.

        Parameters
        ----------
        py, px : int
            Which bin: row and column of the output.
        channel : int
            For RoIPool, whose maximum; the weights of the others are the same in all channels.

        Returns
        -------
        ndarray of float64, shape (H, W)
        """
        py, px, channel = self._place(py, px, channel)
        height, width = self.features.shape[1:]
        if self.op == "roi_pool":
            weights = np.zeros(height * width)
            if self.argmax[channel, py, px] >= 0:
                weights[self.argmax[channel, py, px]] = 1
            return weights.reshape(height, width)
        return np.multiply.outer(self.rows.weights(py, height), self.columns.weights(px, width))

    def to_json(self, channel=None):
        """Return everything as the text of a JSON object, without NaN literals: see `tinyseg.explain.roi_json`.

        Parameters
        ----------
        channel : int, optional
            Of one channel alone; of all without it.

        Returns
        -------
        str
            One line.
        """
        return roi_json.text(self.document(channel))

    def document(self, channel=None):
        """Return what `to_json` writes, as a dict: see `tinyseg.explain.roi_json`.

        Parameters
        ----------
        channel : int, optional
            Of one channel alone; of all without it.

        Returns
        -------
        dict
        """
        return roi_json.document(self, None if channel is None else self._place(0, 0, channel)[2])

    @classmethod
    def from_json(cls, text):
        """Return the trace that `to_json` wrote, worked out anew from its map, box and options.

        Parameters
        ----------
        text : str
            JSON.

        Returns
        -------
        RoITrace
            One whose `to_json` is the same text.

        Raises
        ------
        ValueError
            If the text is no such JSON.
        """
        from tinyseg.explain.roi_trace import roi  # which makes objects of this class

        made = json.loads(text)
        if made.get("format") != roi_json.FORMAT:
            raise ValueError(f"text has format {made.get('format')!r}; expected {roi_json.FORMAT!r}")
        features = roi_json.numbers(made["features"], made["dtype"])
        how = {name: made[name] for name in ("sampling_ratio", "aligned") if made[name] is not None}
        size, scale = tuple(made["output_size"]), made["spatial_scale"]
        trace = roi(features, made["roi"], made["op"], output_size=size, spatial_scale=scale, **how)
        trace.picture = made["picture"]
        return trace

    def _place(self, py, px, channel):
        """Return bin and channel as indices, negative ones counted from the end."""
        place = []
        for name, value, size in zip(
            ("py", "px", "channel"), (py, px, channel), (*self.output_size, len(self.features)), strict=True
        ):
            if not isinstance(value, int | np.integer) or not -size <= value < size:
                raise ValueError(f"{name} is {value!r}; expected a whole number from 0 to {size - 1}")
            place.append(int(value) % size)
        return place

    def _need(self, operators, what):
        if self.op not in operators:
            raise ValueError(f"op is {self.op!r}; {what} is there for {operators} alone")

    # ---- the arithmetic of the naive kernel, a row of bins at a time ----

    def _row_of_samples(self, py, j):
        """Return values and contributions of the j-th row of samples of row ``py`` of bins: two (C, oW, most)."""
        rows, columns, maps = self.rows, self.columns, self.features
        on_map = rows.on_map[py, j] & columns.on_map
        wx0, wx1 = columns.weight_low, columns.weight_high
        upper, lower = maps[:, rows.low[py, j]], maps[:, rows.high[py, j]]
        value = rows.weight_low[py, j] * (wx0 * upper[:, columns.low] + wx1 * upper[:, columns.high])
        value = value + rows.weight_high[py, j] * (wx0 * lower[:, columns.low] + wx1 * lower[:, columns.high])
        value = np.where(on_map, value, value.dtype.type(0))
        share = rows.share(py)[j] * columns.share(slice(None))
        return value, np.where(on_map, share * value, 0.0)

    def _mean(self, py):
        """Return a row of the output, (C, oW)."""
        mean = np.zeros((len(self.features), self.output_size[1]))
        for j in np.flatnonzero(self.rows.on_map[py]):
            parts = self._row_of_samples(py, j)[1]
            # accumulate, unlike sum, adds from left to right
            mean = np.add.accumulate(np.concatenate([mean[:, :, None], parts], axis=2), axis=2)[:, :, -1]
        return mean.astype(self.dtype)


def _box(columns, rows):
    """Return ``x1, y1, x2, y2`` of what the operator made of the box."""
    if isinstance(rows, PoolAxis):
        return columns.start, rows.start, columns.start + columns.size - 1, rows.start + rows.size - 1
    corners = (columns.start, rows.start, columns.start + columns.size, rows.start + rows.size)
    return tuple(map(float, corners))


def _largest(maps, rows, columns):
    """Return RoIPool's output and the places of its maxima, both (C, oH, oW)."""
    width = maps.shape[2]
    lowest = maps.dtype.type(LOWEST)
    shape = (len(maps), len(rows.low), len(columns.low))
    output, argmax = np.zeros(shape, maps.dtype), np.full(shape, -1, np.int32)
    for py, (top, bottom) in enumerate(zip(rows.low, rows.high, strict=True)):
        for px, (left, right) in enumerate(zip(columns.low, columns.high, strict=True)):
            if bottom <= top or right <= left:
                continue
            cells = maps[:, top:bottom, left:right].reshape(len(maps), -1)
            cells = np.where(cells > lowest, cells, lowest)  # NaN never wins
            best = cells.argmax(axis=1)  # the first of equal ones
            output[:, py, px] = cells[np.arange(len(maps)), best]
            y, x = np.divmod(best, right - left)
            found = output[:, py, px] > lowest
            argmax[:, py, px] = np.where(found, (top + y) * width + left + x, -1)
    return output, argmax


def refuse_many(samples, what):
    """Refuse more samples than a trace can hold."""
    if samples > MOST_ON_MAP:
        raise ValueError(f"{what}, which makes {samples} samples on the map; expected at most {MOST_ON_MAP} in a trace")
