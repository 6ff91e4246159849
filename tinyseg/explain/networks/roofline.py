"""The roofline: how fast kernels ran, under the two limits of the machine."""

from itertools import cycle
from typing import NamedTuple

import numpy as np

from tinyseg import backend
from tinyseg.colours import HEX
from tinyseg.explain import checks
from tinyseg.explain.networks.plan_table import Plan

_COLOURS = tuple(HEX[name] for name in ("blue", "vermilion", "bluish green", "reddish purple", "orange", "sky blue"))
_MARKERS = "osD^v<>P"


class Measured(NamedTuple):
    """What a kernel did in which time.

    Attributes
    ----------
    name : str
        Shown in the legend; points of one name look the same.
    flops : float
        Multiplications and additions.
    bytes : float
        Read and written, each number once.
    seconds : float
        The time that it took.
    """

    name: str
    flops: float
    bytes: float
    seconds: float


def roofline(measured, peaks=None, *, title=None):
    """Draw how many operations a second kernels did, over how many they do with each byte, under the machine's limits.

    A kernel can do no more operations a second than the machine can at all (the flat part of the roof), and no more
    than fit to the bytes that memory delivers (the slope): see Williams, Waterman and Patterson, "Roofline: an
    insightful visual performance model for multicore architectures" (2009). A point above the roof counts operations
    of the textbook that it did not need, as Winograd's convolutions do, or bytes that it found in a cache.

    Parameters
    ----------
    measured : Plan, or sequence of Measured or of tuples like it
        What to draw. Of a `Plan`, the calls whose operations are counted, under the names of their operators.
    peaks : dict of str to float, optional
        ``flops`` and ``bytes`` per second of the machine. If left out, those of the plan, or they are measured, which
        takes half a second.
    title : str, optional
        Above the axes.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is nothing to draw, or a count or time is not above 0.

    Examples
    --------
    >>> import tinyseg
    >>> points = [("textbook", 2e9, 1e8, 1.5), ("tile", 2e9, 1e8, 0.02)]
    >>> figure = tinyseg.explain.roofline(points, {"flops": 2e11, "bytes": 2e10}, title="one convolution")
    >>> figure.axes[0].get_title()
    'one convolution'
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    points = _points(measured)
    if peaks is not None:
        peaks = checks.peaks(peaks)
    else:
        peaks = measured.peaks if isinstance(measured, Plan) else backend.machine_peaks()
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    looks = dict(zip(dict.fromkeys(p.name for p in points), zip(cycle(_COLOURS), cycle(_MARKERS)), strict=False))
    for name, (colour, marker) in looks.items():
        places = [(p.flops / p.bytes, p.flops / p.seconds / 1e9) for p in points if p.name == name]
        axes.plot(*zip(*places, strict=True), marker, ms=7, mew=0, color=colour, alpha=0.85, label=name)
    draw_roof(axes, peaks, [p.flops / p.bytes for p in points])
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title or "How fast kernels ran, and how fast they could", fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_roof(axes, peaks, intensities):
    """Draw the roof of a machine over the given operations per byte, with its words and logarithmic scales.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    peaks : dict of str to float
        ``flops`` and ``bytes`` per second.
    intensities : sequence of float
        Operations per byte of what is drawn below: the roof reaches beyond them, and beyond its own corner.
    """
    rate, copied, corner = peaks["flops"] / 1e9, peaks["bytes"] / 1e9, peaks["flops"] / peaks["bytes"]
    x = np.geomspace(min([*intensities, corner]) / 2, max([*intensities, corner]) * 2, 200)
    axes.plot(x, np.minimum(rate, x * copied), color="black", lw=1.5)
    axes.annotate(
        f"multiply-adds: {rate:.0f} GFLOP/s", (x[-1], rate), xytext=(0, 4), textcoords="offset points", ha="right",
        va="bottom", fontsize=8,
    )  # fmt: skip
    axes.annotate(
        f"copying: {copied:.1f} GB/s", (x[0], x[0] * copied), xytext=(8, -2), textcoords="offset points", ha="left",
        va="top", fontsize=8,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.grid(color="#e5e5e5", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("operations of the textbook per byte read or written at least once (flop/byte)")
    axes.set_ylabel("GFLOP/s")


def plain_ticks(axis):
    """Write 1, 2 and 5 times the powers of ten beside a logarithmic axis; only these powers where it is long."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.autoscale_view()
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _points(measured):
    """Return what to draw."""
    if isinstance(measured, Plan):
        rows = [row for row in measured.rows if row.flops and row.seconds > 0]
        points = [Measured(row.words(), row.flops, row.bytes_read + row.bytes_written, row.seconds) for row in rows]
    else:
        points = [_point(point) for point in checks.several("measured", measured, "a Plan or tuples")]
    if not points:
        raise ValueError("measured holds nothing whose operations are counted; expected one kernel or more")
    for point in points:
        if not min(point[1:]) > 0 or not max(point[1:]) < np.inf:
            raise ValueError(f"measured has {point}; expected flops, bytes and seconds above 0")
    return points


def _point(given):
    """Return what was measured of one kernel, also where it came as a plain tuple."""
    if not isinstance(given, tuple | list) or len(given) != 4 or any(isinstance(part, str) for part in given[1:]):
        raise TypeError(f"measured has {given!r}; expected (name, flops, bytes, seconds)")
    return Measured(*given)
