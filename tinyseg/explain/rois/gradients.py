"""Where the gradient of RoI operators flows: which cells get it, how often each is added to, and what order does."""

from typing import NamedTuple

import numpy as np

from tinyseg import backend
from tinyseg.explain import checks
from tinyseg.explain.rois.axes import align_axis
from tinyseg.explain.rois.calls import TITLES, checked_features, checked_how, checked_ops, checked_rois
from tinyseg.explain.rois.orders import RoIOrders, atomic_orders, replayed_orders
from tinyseg.explain.text import ruled, strict_json

_OPS = ("roi_pool", "roi_align", "roi_align_aligned")
_HEADER = (
    "",
    "gradient in",
    "out",
    "cells reached",
    "additions",
    "most in a cell",
    "atomic",
    "order: cells differ",
    "by",
)


class RoIGradient(NamedTuple):
    """The gradient of one RoI operator.

    Attributes
    ----------
    gradient : ndarray, shape (N, C, H, W)
        Of the feature maps, by the backward kernel in use.
    additions : ndarray of int, shape (N, C, H, W)
        How often the textbook's loops add to each cell: RoIPool once for each output whose maximum it was; RoIAlign
        for each sample that it is one of the four cells of, also with weight 0, and twice where two of the four are
        the same cell. torchvision's kernels for GPUs do as many atomic additions.
    atomic : ndarray of int, shape (N, C, H, W)
        How many atomic additions the kernels of `kernels.cuda` do: they take a bin's samples together, so that a cell
        gets one for each bin that reads it.
    orders : RoIOrders or None
        What the order of additions does.
    """

    gradient: np.ndarray
    additions: np.ndarray
    atomic: np.ndarray
    orders: RoIOrders | None


def roi_gradients(
    features, rois, *, output_size, spatial_scale=1.0, sampling_ratio=2, dy=None, ops=_OPS, orders=8, seed=0
):
    """Show where the gradient of RoI operators flows.

    RoIPool sends the gradient of an output to the one cell that was its maximum, RoIAlign to all cells around its
    samples. Where many boxes overlap, many additions meet in a cell. A GPU does them at the same time: either atomic
    operations line up there and add in any order, or one thread owns the cell and adds in a fixed order. Floating-point
    sums depend on the order, which is tried here: by both forms of the gradient on a GPU or in the simulator where
    there is one, and else by adding up the same numbers in random orders.

    Parameters
    ----------
    features : array or Tensor, shape (H, W), (C, H, W) or (N, C, H, W); or tuple of int
        Feature maps; float32 and float64 stay what they are. A tuple is their shape: RoIPool needs values to have a
        maximum, which are drawn from a normal distribution in float32.
    rois : array_like, shape (K, 4) or (K, 5)
        x1, y1, x2, y2 of each box in picture pixels; a batch index before them where there are several pictures.
    output_size : int or (int, int)
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        Samples per bin and axis of RoIAlign; 0 or less for as many as the bin has cells, rounded up.
    dy : array or Tensor, shape (K, C, oH, oW), optional
        Gradient of the output. Ones if left out; orders are then compared with numbers of a normal distribution, since
        small whole numbers add up exactly in any order.
    ops : sequence of str
        Some of ``"roi_pool"``, ``"roi_align"`` (not aligned) and ``"roi_align_aligned"``.
    orders : int
        How many orders of additions are compared with the fixed one; 0 compares none.
    seed : int
        Of the numbers that are drawn here; the library's random numbers are left alone.

    Returns
    -------
    RoIGradients
        ``print`` shows it as a table, ``figure()`` draws it; indexed by an operator's name it gives a `RoIGradient`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, as the kernels say it.

    Examples
    --------
    >>> import numpy as np
    >>> import tinyseg
    >>> ramp = np.arange(16.0).reshape(4, 4)
    >>> found = tinyseg.explain.roi_gradients(ramp, [[0, 0, 2, 2]], output_size=1, sampling_ratio=1)
    >>> found["roi_pool"].gradient[0, 0].tolist()[2]
    [0.0, 0.0, 1.0, 0.0]
    >>> found["roi_align_aligned"].gradient[0, 0, :2, :2].tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    generator = np.random.default_rng(checks.whole("seed", seed))
    if isinstance(features, tuple) and all(isinstance(size, int | np.integer) for size in features):
        features = generator.standard_normal(features, np.float32)
    x = checked_features(features)
    rois = checked_rois(rois, x.dtype, len(x))
    size, spatial_scale, sampling_ratio = checked_how(x, rois, output_size, spatial_scale, sampling_ratio)
    ops = checked_ops(ops)
    if "crop_and_resize" in ops:
        raise ValueError(f"ops has 'crop_and_resize', whose gradient is not shown; expected some of {_OPS}")
    orders = checks.whole("orders", orders)
    shape = (len(rois), x.shape[1], *size)
    given = np.ones(shape, x.dtype) if dy is None else checks.numbers("dy", dy, "fiu").astype(x.dtype)
    if given.shape != shape:
        raise ValueError(f"dy has shape {given.shape}; expected {shape}: one number for each output")
    varied = generator.standard_normal(shape).astype(x.dtype) if dy is None else given

    found = RoIGradients(x, rois, spatial_scale, size, given)
    for op in ops:
        step = _Step(op, x, rois, size, spatial_scale, sampling_ratio)
        additions, atomic = step.counts()
        compared = None
        if orders and len(rois):
            if backend.cuda_runs_on() is not None:
                compared = atomic_orders(step, varied, orders)
            else:
                compared = replayed_orders(step, varied, orders, generator)
        found.add(op, RoIGradient(step.backward(given), additions, atomic, compared))
    return found


class _Step:
    """One operator's backward pass over all boxes.

    Parameters
    ----------
    op : str
    x : ndarray, shape (N, C, H, W)
    rois : ndarray, shape (K, 5)
    size : (int, int)
    scale : float
    ratio : int
    """

    def __init__(self, op, x, rois, size, scale, ratio):
        self.shape, self.rois, self.size, self.dtype = x.shape, rois, size, x.dtype
        self.argmax = None
        if op == "roi_pool":
            _, self.argmax = backend.kernel("roi_pool_forward")(x, rois, size, scale)
            return
        self.options = {"spatial_scale": scale, "sampling_ratio": ratio, "aligned": op == "roi_align_aligned"}
        rois, size, scale, ratio, aligned = backend.checked_arguments(
            "roi_align", x, rois, size, scale, ratio, self.options["aligned"]
        )[1:]
        with np.errstate(over="ignore", under="ignore"):  # samples far away
            self.axes = [
                [
                    align_axis(roi[2 - axis], roi[4 - axis], x.shape[2 + axis], size[axis], scale, ratio, aligned)
                    for axis in (0, 1)
                ]
                for roi in rois
            ]

    def backward(self, dy):
        """Return the gradient of the maps by the kernel in use."""
        if self.argmax is not None:
            return backend.kernel("roi_pool_backward")(dy, self.rois, self.argmax, self.shape)
        return backend.kernel("roi_align_backward")(dy, self.rois, self.shape, **self.options)

    def counts(self):
        """Return how often each cell is added to, sample by sample and bin by bin: two arrays (N, C, H, W)."""
        additions = np.zeros(self.shape, np.int64)
        if self.argmax is not None:
            k, c, py, px = np.nonzero(self.argmax >= 0)
            place = self.argmax[k, c, py, px]
            n, width = self.rois[k, 0].astype(int), self.shape[3]
            np.add.at(additions, (n, c, place // width, place % width), 1)
            return additions, additions.copy()
        atomic = np.zeros(self.shape, np.int64)
        for roi, axes in zip(self.rois, self.axes, strict=True):
            # samples form a grid: what meets in a cell is a product of what meets in its row and in its column
            rows, columns = (_met(axis, cells) for axis, cells in zip(axes, self.shape[2:], strict=True))
            for total, i in ((additions, 0), (atomic, 1)):
                total[int(roi[0])] += np.outer(rows[i], columns[i])
        return additions, atomic

    def parts(self, dy, channel):
        """Return all numbers that are added up in a channel, box by box and bin by bin: cells (flat), and numbers."""
        height, width = self.shape[2:]
        cells, values = [], []
        for k, roi in enumerate(self.rois):
            start = int(roi[0]) * height * width
            if self.argmax is not None:
                places = self.argmax[k, channel].ravel()
                cells.append(start + places[places >= 0].astype(np.int64))
                values.append(dy[k, channel].ravel()[places >= 0])
                continue
            (row, weight_y), (column, weight_x) = (_taken(axis) for axis in self.axes[k])
            # bin rows, bin columns, then what each bin takes
            place = row[:, None, :, None] * width + column[None, :, None, :]
            value = weight_y[:, None, :, None] * weight_x[None, :, None, :] * dy[k, channel][:, :, None, None]
            taken = (row >= 0)[:, None, :, None] & (column >= 0)[None, :, None, :]
            cells.append(start + place[taken])
            values.append(value[taken])
        return np.concatenate(cells), np.concatenate(values).astype(self.dtype)


def _met(axis, cells):
    """Return how often each cell of an axis is read by samples, and by how many bins."""
    by_samples, by_bins = np.zeros(cells, np.int64), np.zeros(cells, np.int64)
    for p in range(len(axis.on_map)):
        read = np.concatenate([axis.low[p, axis.on_map[p]], axis.high[p, axis.on_map[p]]])
        by_samples += np.bincount(read, minlength=cells)
        by_bins[np.unique(read)] += 1
    return by_samples, by_bins


def _taken(axis):
    """Return cells and weights of an axis, sample after sample: two arrays (bins, 2 * most), -1 for none."""
    share = axis.times / np.float64(max(axis.grid, 1))
    cells = np.stack([axis.low, axis.high], axis=-1)
    weights = np.stack([axis.weight_low * share, axis.weight_high * share], axis=-1)
    return cells.reshape(len(cells), -1), weights.reshape(len(cells), -1)


class RoIGradients:
    """Where the gradient of RoI operators flows: what `tinyseg.explain.roi_gradients` returns.

    ``print`` shows it as a table; indexed by an operator's name it gives a `RoIGradient`.

    Parameters
    ----------
    features : ndarray, shape (N, C, H, W)
        The feature maps.
    rois : ndarray, shape (K, 5)
        Batch index, and corners in picture pixels.
    spatial_scale : float
        Feature cells per picture pixel.
    output_size : (int, int)
        Number of bins: vertical, horizontal.
    dy : ndarray, shape (K, C, oH, oW)
        Gradient of the output.

    Attributes
    ----------
    ops : dict of str to RoIGradient
        By operator.
    """

    def __init__(self, features, rois, spatial_scale, output_size, dy):
        self.features, self.rois, self.dy = features, rois, dy
        self.spatial_scale, self.output_size = spatial_scale, output_size
        self.ops: dict[str, RoIGradient] = {}

    def __getitem__(self, op):
        return self.ops[op]

    def add(self, op, found):
        """Add an operator.

        Parameters
        ----------
        op : str
            Its name.
        found : RoIGradient
            What it does.
        """
        self.ops[op] = found

    def numbers(self, op):
        """Return what the table says of an operator.

        Parameters
        ----------
        op : str
            Its name.

        Returns
        -------
        dict
            ``given``: the sum of the outputs' gradient; ``total``: that of the maps' gradient, the same where no bin
            and no sample is off the map; ``cells_reached``: cells whose gradient is not 0; ``additions``, ``most``:
            in all and in one cell; ``atomic``: those of `kernels.cuda`, in all.
        """
        found = self.ops[op]
        return {
            "given": float(self.dy.sum(dtype=np.float64)),
            "total": float(found.gradient.sum(dtype=np.float64)),
            "cells_reached": int(np.count_nonzero(found.gradient)),
            "additions": int(found.additions.sum()),
            "most": int(found.additions.max()),
            "atomic": int(found.atomic.sum()),
        }

    def figure(self, picture=0, channel=None):
        """Draw for each operator its gradient, the additions to each cell, and where their order shows.

        Parameters
        ----------
        picture : int
            Which picture.
        channel : int, optional
            Which channel. If left out, the gradient and the additions of all are added up, and of the differences the
            largest is shown.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("gradients.png")`` writes it; a notebook shows it.

        Raises
        ------
        ValueError
            If there is no such picture or channel.
        """
        from tinyseg.explain.rois.gradients_figure import draw

        for name, value, count in (("picture", picture, len(self.features)), ("channel", channel, self.dy.shape[1])):
            if value is not None and value not in range(count):
                raise ValueError(f"{name} is {value!r}; expected 0 to {count - 1}")
        return draw(self, picture, channel)

    def to_json(self):
        """Return everything as the text of a JSON object; NaN and infinity are null.

        Returns
        -------
        str
        """
        operators = {}
        for op, found in self.ops.items():
            orders = found.orders
            operators[op] = {
                **self.numbers(op),
                "gradient": found.gradient,
                "additions_to_each": found.additions,
                "atomic_to_each": found.atomic,
                "orders": None if orders is None else orders._asdict(),
            }
        whole = {
            "rois": self.rois, "spatial_scale": self.spatial_scale, "output_size": self.output_size,
            "dy": self.dy, "operators": operators,
        }  # fmt: skip
        return strict_json(whole)

    def __str__(self):
        n, c, h, w = self.features.shape
        rows, columns = self.output_size
        boxes = "1 box" if len(self.rois) == 1 else f"{len(self.rois)} boxes"
        title = f"{boxes} of {rows}x{columns} bins on {n}x{c}x{h}x{w} cells of {self.features.dtype}"
        lines: list = [_HEADER]
        for op, found in self.ops.items():
            numbers, orders = self.numbers(op), found.orders
            counts = (str(numbers[name]) for name in ("cells_reached", "additions", "most", "atomic"))
            order = (
                ("", "")
                if orders is None
                else (f"{orders.differing} of {orders.cells}", f"{orders.most} ulp, {orders.largest:.1e}")
            )
            lines.append((TITLES[op], f"{numbers['given']:.5g}", f"{numbers['total']:.5g}", *counts, *order))
        notes = [
            "gradient in, out: sums over the outputs and over the maps.",
            "additions: of the textbook's loops, and of torchvision's kernels for GPUs; atomic: of kernels.cuda, which",
            "adds once for each bin and cell. ulp: units in the last place; a sum that nearly cancels is off by many.",
        ]
        compared = {found.orders.words() for found in self.ops.values() if found.orders}
        notes += [f"order: {words}" for words in sorted(compared)]
        return "\n".join([title, *ruled(lines, (0,)), "", *notes])

    __repr__ = __str__
