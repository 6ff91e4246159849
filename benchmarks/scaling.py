"""How the cost of an operator grows with pixels, channels and boxes: ``tinyseg bench scaling``.

Work that is done once per pixel, channel or box grows linearly: slope 1 where both axes are logarithmic. Suppression
and the overlaps of n boxes with n boxes look at pairs, and pairs are quadratic by nature: slope 2. Small sizes are left
out of the slope, since a call has a cost of its own, and there is a step where arrays outgrow a cache.
"""

import argparse
import json
import time
from typing import NamedTuple

import numpy as np

import kernels
from benchmarks import entrants, operators, plots
from benchmarks.box_operators import box_iou, nms, roi_align, roi_pool
from benchmarks.convolutions import conv2d
from tinyseg import backend, files
from tinyseg.cli.common import number

#: How far above the expected slope a measured one may be: caches that grow too small, and noise.
ALLOWED = 0.3
#: Sizes that the slope is fitted through, the largest.
_FITTED = 4


#: Times that every size is measured, at least.
_TURNS = 5


class Growth(NamedTuple):
    """One operator along one axis: ``make(n)`` returns it for size n, whose cost should grow as ``n ** power``."""

    axis: str
    name: str
    sizes: tuple
    make: object
    power: int = 1

    @property
    def full_name(self):
        """Axis and name, as ``--only`` knows them."""
        return f"{self.axis}/{self.name}"


class Curve(NamedTuple):
    """What was measured: the least seconds per size, and the slope through the largest sizes."""

    axis: str
    name: str
    power: int
    sizes: list
    seconds: list
    slope: float

    @property
    def too_steep(self):
        """Whether the cost grows faster than it should."""
        return self.slope > self.power + ALLOWED


_SIDES = (128, 256, 512, 1024, 1536, 2048, 3072, 4096)  # of square pictures
_CHANNELS = (16, 32, 64, 128, 256, 384, 512)
_BOXES = (300, 1000, 2500, 5000, 10_000, 15_000, 20_000)


def growths():
    """Return everything that is measured."""
    of_side = {
        "conv2d 3x3, 8 to 8": lambda n: conv2d((1, 8, n, n), (8, 8, 3, 3), padding=(1, 1)),
        "conv2d 3x3 stride 2, 8 to 16": lambda n: conv2d((1, 8, n, n), (16, 8, 3, 3), (2, 2), (1, 1)),
        "conv2d 1x1, 8 to 16": lambda n: conv2d((1, 8, n, n), (16, 8, 1, 1)),
        "batch_norm": lambda n: operators.batch_norm(1, 8, n, n),
        "relu": lambda n: operators.relu(1, 8, n, n),
        "max_pool2d": lambda n: operators.max_pool2d((1, 8, n, n), 2, 2),
        "upsample2d bilinear": lambda n: operators.upsample2d((1, 8, n // 2, n // 2), "bilinear"),
    }
    of_channels = {
        "conv2d 3x3, n to 32": lambda n: conv2d((1, n, 64, 64), (32, n, 3, 3), padding=(1, 1)),
        "conv2d 3x3, 32 to n": lambda n: conv2d((1, 32, 64, 64), (n, 32, 3, 3), padding=(1, 1)),
        "conv2d 1x1, n to 32": lambda n: conv2d((1, n, 64, 64), (32, n, 1, 1)),
        "batch_norm": lambda n: operators.batch_norm(2, n, 256, 256),
        "roi_align, 100 boxes": lambda n: roi_align((1, n, 50, 68), 100, 7),
    }
    of_boxes = {
        "roi_align": (lambda n: roi_align((1, 32, 50, 68), n, 7), 1),
        "roi_pool": (lambda n: roi_pool((1, 32, 50, 68), n, 7), 1),
        "box_iou with 100 others": (lambda n: box_iou(n, 100), 1),
        "box_iou with each other": (lambda n: box_iou(n, n), 2),
        "nms": (nms, 2),
    }
    return [
        *(Growth("pixels", name, _SIDES, make) for name, make in of_side.items()),
        *(Growth("channels", name, _CHANNELS, make) for name, make in of_channels.items()),
        *(Growth("boxes", name, _BOXES, make, power) for name, (make, power) in of_boxes.items()),
    ]


def measure(growth, backend_name, seconds):
    """Return the `Curve` of an operator: the fastest of some calls per size, since noise only adds.

    The sizes take turns, so that a busy moment does not fall on one of them alone.
    """
    entrants_of = [growth.make(size).entrant(backend_name, "forward") for size in growth.sizes]
    for entrant in entrants_of:
        entrant.call()
    fastest = np.full(len(entrants_of), np.inf)
    turns, end = 0, time.perf_counter() + seconds
    while turns < _TURNS or time.perf_counter() < end:
        for i, entrant in enumerate(entrants_of):
            start = time.perf_counter()
            entrant.call()
            fastest[i] = min(fastest[i], time.perf_counter() - start)
        turns += 1
    sizes = [size**2 if growth.axis == "pixels" else size for size in growth.sizes]
    return Curve(growth.axis, growth.name, growth.power, sizes, fastest.tolist(), slope(sizes, fastest))


def slope(sizes, seconds):
    """Return the power of the size that the cost grows with: a straight line through the largest sizes' logarithms."""
    return float(np.polyfit(np.log(sizes[-_FITTED:]), np.log(seconds[-_FITTED:]), 1)[0])


def table(curves):
    """Return the slopes as a Markdown table."""
    lines = ["| grows with | operator | slope | expected | largest | ms |", "| :-- | :-- | --: | --: | --: | --: |"]
    for curve in curves:
        expected = "1, linear" if curve.power == 1 else "at most 2: pairs of boxes"
        mark = " TOO STEEP" if curve.too_steep else ""
        lines.append(
            f"| {curve.axis} | {curve.name} | {curve.slope:.2f}{mark} | {expected} | {curve.sizes[-1]:,} "
            f"| {curve.seconds[-1] * 1e3:.3g} |"
        )
    return "\n".join(lines)


def draw(curves, machine):
    """Return the picture: a panel for each axis, with lines of slope 1 and 2 to compare with."""
    from matplotlib.figure import Figure

    axes_names = list(dict.fromkeys(curve.axis for curve in curves))
    figure = Figure(figsize=(4.6 * len(axes_names), 5.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(axes_names), squeeze=False)[0]
    for panel, axis in zip(panels, axes_names, strict=True):
        shown = [curve for curve in curves if curve.axis == axis]
        for i, curve in enumerate(shown):
            style = {"color": plots.COLOURS[i % len(plots.COLOURS)], "marker": "osD^v<>"[i % 7], "ms": 4, "lw": 1.4}
            panel.plot(curve.sizes, np.multiply(curve.seconds, 1e3), label=f"{curve.name}: {curve.slope:.2f}", **style)
        _set_axes(panel, shown)
        _guides(panel, shown)
    panels[0].set_ylabel("milliseconds")
    figure.suptitle(plots.machine_line(machine), fontsize=9, color="#444444")
    return figure


def _set_axes(panel, curves):
    """Set the scales, ticks and legend of a panel."""
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(curves[0].axis)
    if curves[0].axis != "pixels":  # hardly more than a power of ten: the sizes themselves
        panel.minorticks_off()
        every_other = curves[0].sizes[::-2][::-1]
        panel.set_xticks(every_other, [f"{size:,}" for size in every_other])
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="#e8e8e8", lw=0.6)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12)}
    panel.legend(title="slope of the largest four sizes", title_fontsize=8, fontsize=8, frameon=False, **place)


def _guides(panel, curves):
    """Draw dotted lines of the slopes expected, below all curves."""
    low = min(min(curve.seconds) for curve in curves) * 1e3
    ends = np.array([curves[0].sizes[0], curves[0].sizes[-1]], float)
    for power in sorted({curve.power for curve in curves}):
        line = low / 3 * (ends / ends[0]) ** power
        panel.plot(ends, line, ":", color="#888888", lw=1.2)
        panel.annotate(
            f"{power}", (ends[1], line[1]), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
            color="#666666",
        )  # fmt: skip


def add_arguments(parser):
    """Add the options of ``tinyseg bench scaling``."""
    parser.epilog = "Ends with 1 if a cost grows faster than it should: slope 1, and 2 for pairs of boxes."
    same = argparse.SUPPRESS  # as given before the word "scaling", or its default there
    parser.add_argument("--only", nargs="+", default=same, metavar="PATTERN", help="part of axis/name: boxes, conv2d")
    parser.add_argument("--backend", default=same, metavar="NAME", help="kernels to measure (default: cpu)")
    parser.add_argument("--seconds", type=number(0), default=3.0, metavar="S", help="per curve (default: 3)")
    parser.add_argument("--threads", type=int, default=same, metavar="N", help="processor threads (default: all)")
    parser.add_argument("--out", default=same, metavar="DIR", help="folder for the results (default: speed)")
    parser.add_argument("--debug", action="store_true", default=same, help="show Python's traceback on failure")


def run(args):
    """Measure all curves, leave scaling.json, .md, .png and .svg; return 1 if one is too steep, otherwise 0."""
    from tqdm import tqdm

    every = growths()
    chosen = [growth for growth in every if not args.only or any(part in growth.full_name for part in args.only)]
    if not chosen:
        raise ValueError(f"--only chooses none of: {', '.join(growth.full_name for growth in every)}")
    folder = files.make_folder(args.out)
    name = backend.current_backend()
    kernels.get(name)
    curves, stopped = [], False
    try:
        for growth in tqdm(chosen, unit="curve", leave=False, disable=None):
            curves.append(measure(growth, name, args.seconds))
    except KeyboardInterrupt:
        stopped = True
    machine = entrants.machine([name])
    if curves:
        data = {"machine": machine, "backend": name, "curves": [curve._asdict() for curve in curves]}
        files.write_text(folder / "scaling.json", json.dumps(data, indent=1) + "\n")
        files.write_text(folder / "scaling.md", f"# Growth of cost\n\n{table(curves)}\n")
        plots.save(folder, "scaling", draw(curves, machine))
    print(table(curves))
    print(f"{len(curves)} curves saved in {folder}" + (", which is all until you stopped" if stopped else ""))
    return 130 if stopped else int(any(curve.too_steep for curve in curves))
