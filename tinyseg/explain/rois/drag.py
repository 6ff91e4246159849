"""A box that moves by parts of a pixel: RoIPool steps, RoIAlign glides."""

from typing import NamedTuple

import numpy as np

from tinyseg.explain import checks
from tinyseg.explain.rois.calls import TITLES, checked_features, checked_how, checked_ops, checked_roi, pool
from tinyseg.explain.text import ruled, strict_json

#: A longer way takes too much memory for all its outputs.
_MOST_STEPS = 100_000
#: A jump is looked for in halves of a step, halves of these, and so on.
_HALVINGS = 12
_HEADER = ("", "steps", "no change", "jumps", "largest jump", "largest slope per pixel", "per cell")


class RoIJump(NamedTuple):
    """A place where the output of a RoI operator jumps while its box moves.

    Attributes
    ----------
    offset : float
        How far the box has moved, in picture pixels: just after the jump, and at most 1/4096 of a step beyond it.
    step : int
        In which step, from 0.
    size : float
        By how much the bin jumps that jumps most.
    bins : ndarray of bool, shape (C, oH, oW)
        Which bins jump.
    before, after : ndarray, shape (C, oH, oW)
        The output on both sides.
    """

    offset: float
    step: int
    size: float
    bins: np.ndarray
    before: np.ndarray
    after: np.ndarray


def roi_drag(
    features,
    roi,
    *,
    output_size,
    spatial_scale=1.0,
    sampling_ratio=2,
    axis="x",
    step=1 / 16,
    distance=None,
    ops=("roi_pool", "roi_align", "roi_align_aligned"),
):
    """Move a box by parts of a picture pixel, and see what RoI operators make of it.

    All outputs are those of the kernels in use. The operators give no gradient to boxes: derivatives by the box's place
    are differences of neighbouring outputs, divided by the step. Where an output jumps there is none. RoIPool is
    constant but for its jumps, so any change is one. RoIAlign is continuous, but where a sample leaves the map, or the
    number of samples changes: a change is called a jump if it does not shrink with the step. With adaptive sampling and
    bins of just so many cells, rounding changes that number to and fro: of so many jumps only the larger are listed.

    Parameters
    ----------
    features : array or Tensor, shape (H, W), (C, H, W) or (N, C, H, W)
        Feature maps of finite numbers; float32 and float64 stay what they are.
    roi : array_like of 4 or 5 numbers
        x1, y1, x2, y2 where it starts, in picture pixels; a batch index before them where there are several pictures.
    output_size : int or (int, int)
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        Samples per bin and axis of RoIAlign; 0 or less for as many as the bin has cells, rounded up.
    axis : {"x", "y"}
        Where it moves: to the right or down.
    step : float
        How far at a time, in picture pixels.
    distance : float, optional
        How far in all, in picture pixels: rounded to whole steps, at most 100000. Two cells if left out.
    ops : sequence of str
        Some of ``"roi_pool"``, ``"crop_and_resize"``, ``"roi_align"`` (not aligned) and ``"roi_align_aligned"``. Crops
        are as `tinyseg.explain.roi` has them: TensorFlow's, of boxes divided by the size of the picture.

    Returns
    -------
    RoIDrag
        ``print`` shows it as a table, ``figure()`` draws it.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, as the kernels say it, or features are not finite.

    Examples
    --------
    On a ramp along x, where each cell is one more than its neighbour:

    >>> import numpy as np
    >>> import tinyseg
    >>> ramp = np.tile(np.arange(8.0), (8, 1))
    >>> drag = tinyseg.explain.roi_drag(ramp, [1, 1, 3, 3], output_size=1)
    >>> [jump.offset for jump in drag.jumps["roi_pool"]], len(drag.jumps["roi_align"])
    ([0.5, 1.5], 0)
    >>> drag.derivatives["roi_align"].ravel()[:3].tolist()
    [1.0, 1.0, 1.0]
    """
    x, ops = checked_features(features), checked_ops(ops)
    if not np.isfinite(x).all():
        raise ValueError("features has values that are not finite; expected finite ones, to take differences of")
    if axis not in ("x", "y"):
        raise ValueError(f"axis is {axis!r}; expected 'x' or 'y'")
    box = checked_roi(roi, x.dtype, len(x))
    output_size, spatial_scale, sampling_ratio = checked_how(x, box, output_size, spatial_scale, sampling_ratio)
    distance = checks.above_zero("distance", 2 / spatial_scale if distance is None else distance)
    count = round(distance / checks.above_zero("step", step))
    if not 1 <= count <= _MOST_STEPS:
        raise ValueError(f"distance is {distance}; expected 1 to {_MOST_STEPS} steps of {step}")

    def outputs_at(op, offsets):
        rois = np.repeat(box, len(offsets), axis=0)
        moved = box[:, [1, 3]] if axis == "x" else box[:, [2, 4]]
        rois[:, [1, 3] if axis == "x" else [2, 4]] = moved.astype(np.float64) + offsets[:, None]
        return pool(op, x, rois, output_size, spatial_scale, sampling_ratio)

    offsets = np.arange(count + 1) * float(step)
    drag = RoIDrag(box[0], axis, offsets, spatial_scale, output_size)
    # on the map, no sample changes faster than neighbouring cells differ
    steepest = float(np.abs(np.diff(x.astype(np.float64), axis=3 if axis == "x" else 2)).max(initial=0)) * spatial_scale
    eps = float(np.finfo(x.dtype).eps)
    places = np.abs(box[:, 1:].astype(np.float64)).max() + offsets[-1] + 1 / spatial_scale
    noise = 8 * eps * steepest * places + 64 * eps * float(np.abs(x).max())
    for op in ops:
        limits = (0.0, 0.0) if op == "roi_pool" else (steepest, noise)
        outputs = outputs_at(op, offsets)
        drag.add(op, outputs, _jumps(lambda at, op=op: outputs_at(op, at), offsets, outputs, *limits))
    return drag


def _jumps(outputs_at, offsets, outputs, slope, noise):
    """Return where outputs jump: what changes more, over a tiny part of a step, than ``slope`` lets it."""
    outputs = outputs.astype(np.float64)
    axes = tuple(range(1, outputs.ndim))
    low, high, before, after = offsets[:-1], offsets[1:], outputs[:-1], outputs[1:]
    step = np.arange(len(low))
    change = np.abs(after - before).max(axis=axes)
    keep = change > noise
    for _ in range(_HALVINGS):
        low, high, before, after, step = (part[keep] for part in (low, high, before, after, step))
        if not len(low):
            return []
        middle = (low + high) / 2
        between = outputs_at(middle).astype(np.float64)
        first, second = (np.abs(part).max(axis=axes) for part in (between - before, after - between))
        # the half that changes more, and the other one too if it changes more than a slope could
        limit = slope * (high - low) / 2 + noise
        keep = np.concatenate([(first >= second) | (first > limit), (second > first) | (second > limit)])
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        before, after = np.concatenate([before, between]), np.concatenate([between, after])
        step = np.concatenate([step, step])
    jumps = []
    for i in np.argsort(high, kind="stable"):
        change = np.abs(after[i] - before[i])
        bins = change > slope * (high[i] - low[i]) + noise
        if keep[i] and bins.any():
            jumps.append(RoIJump(float(high[i]), int(step[i]), float(change.max()), bins, before[i], after[i]))
    return jumps


class RoIDrag:
    """What RoI operators make of a moving box: what `tinyseg.explain.roi_drag` returns. ``print`` shows it as a table.

    Parameters
    ----------
    roi : ndarray, shape (5,)
        Batch index and corners where it started, in picture pixels.
    axis : {"x", "y"}
        Where it moved.
    offsets : ndarray, shape (S + 1,)
        How far it had moved, in picture pixels.
    spatial_scale : float
        Feature cells per picture pixel: ``offsets * spatial_scale`` is in cells.
    output_size : (int, int)
        Number of bins: vertical, horizontal.

    Attributes
    ----------
    outputs : dict of str to ndarray, shape (S + 1, C, oH, oW)
        By operator.
    derivatives : dict of str to ndarray, shape (S, C, oH, oW)
        By operator: the change over each step, per picture pixel; NaN for bins that jump within it.
    changes : dict of str to ndarray, shape (S + 1,)
        By operator: the Euclidean norm of the change of all bins and channels since the start.
    speeds : dict of str to ndarray, shape (S,)
        By operator: the Euclidean norm of the derivative; NaN where a bin jumps.
    jumps : dict of str to list of RoIJump
        By operator, in the order of the way.
    """

    def __init__(self, roi, axis, offsets, spatial_scale, output_size):
        self.roi, self.axis, self.offsets = roi, axis, offsets
        self.spatial_scale, self.output_size = spatial_scale, output_size
        self.outputs: dict = {}
        self.derivatives: dict = {}
        self.changes: dict = {}
        self.speeds: dict = {}
        self.jumps: dict = {}

    def add(self, op, outputs, jumps):
        """Add an operator.

        Parameters
        ----------
        op : str
            Its name.
        outputs : ndarray, shape (S + 1, C, oH, oW)
            What it gives at each offset.
        jumps : list of RoIJump
            Where that jumps.
        """
        wide = outputs.astype(np.float64)
        derivative = np.diff(wide, axis=0) / np.diff(self.offsets)[:, None, None, None]
        for jump in jumps:
            derivative[jump.step][jump.bins] = np.nan
        self.outputs[op], self.derivatives[op], self.jumps[op] = outputs, derivative, jumps
        self.changes[op] = np.sqrt(((wide - wide[0]) ** 2).sum(axis=(1, 2, 3)))
        self.speeds[op] = np.sqrt((derivative**2).sum(axis=(1, 2, 3)))

    def numbers(self, op):
        """Return what the table says of an operator.

        Parameters
        ----------
        op : str
            Its name.

        Returns
        -------
        dict
            ``steps``; ``unchanged``: steps over which no bin changed; ``jumps``; ``largest_jump`` of a bin, 0 where
            there is none; ``largest_slope`` of a bin where it has one, per picture pixel.
        """
        outputs, slopes, jumps = self.outputs[op], np.abs(self.derivatives[op]), self.jumps[op]
        return {
            "steps": len(outputs) - 1,
            "unchanged": int((outputs[1:] == outputs[:-1]).all(axis=(1, 2, 3)).sum()),
            "jumps": len(jumps),
            "largest_jump": max((jump.size for jump in jumps), default=0.0),
            "largest_slope": float(slopes[np.isfinite(slopes)].max(initial=0)),
        }

    def figure(self, channel=0, bins=None):
        """Draw outputs and derivatives over the way of the box.

        Parameters
        ----------
        channel : int
            Which channel.
        bins : sequence of (int, int), optional
            Row and column of the bins to draw, at most seven. Those of the middle row if left out, or of the middle
            column if the box moves down.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("drag.png")`` writes it; a notebook shows it.

        Raises
        ------
        ValueError
            If there is no such channel or bin.
        """
        from tinyseg.explain.rois.drag_figure import draw

        return draw(self, channel, bins)

    def to_json(self):
        """Return everything as the text of a JSON object, lengths in picture pixels; NaN is null.

        Returns
        -------
        str
        """
        operators = {}
        for op, outputs in self.outputs.items():
            jumps = [
                {"offset": jump.offset, "step": jump.step, "size": jump.size, "bins": np.argwhere(jump.bins).tolist()}
                for jump in self.jumps[op]
            ]
            operators[op] = {
                **self.numbers(op), "outputs": outputs, "derivatives": self.derivatives[op],
                "changes": self.changes[op], "speeds": self.speeds[op], "jumps_at": jumps,
            }  # fmt: skip
        whole = {
            "roi": self.roi, "axis": self.axis, "spatial_scale": self.spatial_scale,
            "output_size": self.output_size, "offsets": self.offsets, "operators": operators,
        }  # fmt: skip
        return strict_json(whole)

    def __str__(self):
        step, corners = self.offsets[1] - self.offsets[0], ", ".join(f"{corner:g}" for corner in self.roi[1:])
        title = (
            f"box [{corners}] moved along {self.axis} by {self.offsets[-1]:g} picture pixels "
            f"({self.offsets[-1] * self.spatial_scale:g} cells), {step:g} at a time"
        )
        lines: list = [_HEADER]
        for op in self.outputs:
            n = self.numbers(op)
            slopes = n["largest_slope"], n["largest_slope"] / self.spatial_scale
            counts = (str(n[name]) for name in ("steps", "unchanged", "jumps"))
            lines.append((TITLES[op], *counts, f"{n['largest_jump']:.4g}", *(f"{slope:.4g}" for slope in slopes)))
        notes = "Jumps and slopes are those of the bin where they are largest; slopes are differences over one step."
        return "\n".join([title, *ruled(lines, (0,)), "", notes])

    __repr__ = __str__
