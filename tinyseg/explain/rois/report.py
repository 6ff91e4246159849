"""What the RoI microscope found: the numbers of each bin and sample, and as JSON."""

import json
from typing import Any

import numpy as np

from tinyseg.explain.rois import as_json, table
from tinyseg.explain.rois.axes import corners_of
from tinyseg.explain.rois.calls import TITLES
from tinyseg.explain.rois.values import RoICell, RoISample, largest, means, refuse_many, row_of_samples


class RoITrace:
    """All that a RoI operator computes for one box: what `tinyseg.explain.roi` returns. ``print`` shows it as a table.

    Along each axis it holds the bins and samples (``rows`` is the vertical axis, ``columns`` the horizontal one);
    samples of a bin are all pairs of one of its row axis and one of its column axis, row by row.

    Parameters
    ----------
    op : {"roi_align", "roi_pool", "crop_and_resize"}
        The operator.
    features : ndarray, shape (C, H, W)
        The map that the box is pooled from: the caller's array itself where it has the type, not to be changed.
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
        The bins and samples along each axis: see `tinyseg.explain.rois.axes`.

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
        self.box = corners_of(columns, rows)
        self.argmax: Any = None
        if op == "roi_pool":
            self.output, self.argmax = largest(features, rows, columns)
        else:
            refuse_many(int(rows.on_map.sum()) * int(columns.on_map.sum()), f"output_size is {output_size}")
            self.output = means(features, rows, columns)

    @property
    def dtype(self):
        """The type of the map, and of all arithmetic."""
        return self.features.dtype

    @property
    def title(self):
        """What the operator is called, and whether it is aligned: ``"RoIAlign, aligned"``."""
        return TITLES["roi_align_aligned" if self.aligned else self.op]

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
            pairs = [row_of_samples(self.features, self.rows, self.columns, py, j) for j in self.rows.listed(py)]
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

    def table(self, channel=0, bins=None):
        """Return the computation as text that can be followed by hand.

        Parameters
        ----------
        channel : int
            Whose values.
        bins : list of (int, int), optional
            Which bins, by row and column of the output; the first ones without it, some sixty lines.

        Returns
        -------
        str
        """
        channel = self._place(0, 0, channel)[2]
        chosen = None if bins is None else [tuple(self._place(py, px, 0)[:2]) for py, px in bins]
        return table.table(self, channel, chosen)

    def __str__(self):
        return self.table()

    __repr__ = __str__

    def figure(self, channel=0, bin=(0, 0), sample=None):
        """Draw the map with the box, its bins and samples, and the output beside it.

        Parameters
        ----------
        channel : int
            Whose values.
        bin : (int, int) or None
            Row and column of the bin that is marked, with the cells that count in it and their weights; None for none.
        sample : int, optional
            A sample of that bin, by its place in `samples`: its neighbours and their weights are marked instead.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("roi.png")`` writes it; a notebook shows it.
        """
        from tinyseg.explain.rois.figure import draw

        return draw([self], *self.chosen(channel, bin, sample), beside=True)

    def svg(self, channel=0, bin=(0, 0), sample=None):
        """Return what `figure` draws as the text of an SVG file.

        Parameters
        ----------
        channel, bin, sample
            As `figure` takes them.

        Returns
        -------
        str
        """
        from tinyseg.explain.rois.figure import svg

        return svg(self.figure(channel, bin, sample), f"{self.title}: the map, the box, its bins and the output")

    def html(self, channel=0):
        """Return a page that needs no network: the figure and the table; point at a bin to see what it is made of.

        Parameters
        ----------
        channel : int
            Whose values.

        Returns
        -------
        str
        """
        from tinyseg.explain.rois.page import page

        return page([self], self.chosen(channel, None)[0])

    def chosen(self, channel, bin, sample=None):
        """Return channel, bin and sample as they are drawn, counted from the start.

        Parameters
        ----------
        channel, bin, sample
            As `figure` takes them.

        Returns
        -------
        tuple

        Raises
        ------
        ValueError
            If there is no such.
        """
        py, px = bin or (0, 0)
        py, px, channel = self._place(py, px, channel)
        if sample is None:
            return channel, bin and (py, px), None
        count = len(self.samples(py, px, channel))
        if bin is None or not isinstance(sample, int | np.integer) or not 0 <= sample < count:
            raise ValueError(f"sample is {sample!r} of bin {bin}, which has {count}; expected one of them, from 0")
        return channel, (py, px), int(sample)

    def to_json(self, channel=None):
        """Return everything as the text of a JSON object, without NaN literals: see `tinyseg.explain.rois.as_json`.

        Parameters
        ----------
        channel : int, optional
            Of one channel alone; of all without it.

        Returns
        -------
        str
            One line.
        """
        return as_json.text(self.document(channel))

    def document(self, channel=None):
        """Return what `to_json` writes, as a dict: see `tinyseg.explain.rois.as_json`.

        Parameters
        ----------
        channel : int, optional
            Of one channel alone; of all without it.

        Returns
        -------
        dict
        """
        return as_json.document(self, None if channel is None else self._place(0, 0, channel)[2])

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
        from tinyseg.explain.rois.trace import roi  # which makes objects of this class

        made = json.loads(text)
        if made.get("format") != as_json.FORMAT:
            raise ValueError(f"text has format {made.get('format')!r}; expected {as_json.FORMAT!r}")
        features = as_json.numbers(made["features"], made["dtype"])
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
