"""The picture of conventions: where each library looks for the same box."""

import math
import textwrap

import numpy as np

from tinyseg.colours import HEX

_BOX, _SAMPLE, _MAXIMUM = HEX["orange"], HEX["blue"], HEX["reddish purple"]
_ACROSS = 4


def draw(table):
    """Draw `Conventions`: a panel for each row.

    Parameters
    ----------
    table : Conventions

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    down = math.ceil(len(table.rows) / _ACROSS)
    height, width = table.features.shape[1:]
    aspect = min(max(height / width, 0.5), 1.5)
    figure = Figure(
        figsize=(10.4, down * (0.85 + 2.2 * aspect) + 1.0), dpi=100, layout=ConstrainedLayoutEngine(h_pad=0.1)
    )
    panels = figure.subplots(down, _ACROSS).ravel()
    limits = _limits(table)
    for panel, row in zip(panels, table.rows, strict=False):
        _draw_panel(panel, table, row, limits)
    for panel in panels[len(table.rows) :]:
        panel.set_axis_off()
    _legend(figure)
    corners = ", ".join(f"{corner:g}" for corner in table.roi)
    rows, columns = table.output_size
    cells = "cell" if table.spatial_scale == 1 else "cells"
    figure.suptitle(
        f"Where libraries look for the box [{corners}], {rows}x{columns} bins, "
        f"{table.spatial_scale:g} feature {cells} per picture pixel; below each, its numbers",
        fontsize=11,
    )
    return figure


def _limits(table):
    """Return the ends of all panels: the box and all samples, and a cell around them."""
    height, width = table.features.shape[1:]
    box = table.roi * table.spatial_scale - 0.5
    points = np.concatenate([row.points for row in table.rows] + [box.reshape(2, 2)])
    low, high = points.min(axis=0), points.max(axis=0)
    left, top = np.maximum(np.floor(low - 0.5) - 0.5, [-3.5, -3.5])
    right, bottom = np.minimum(np.ceil(high + 0.5) + 0.5, [width + 2.5, height + 2.5])
    return left, right, top, bottom


def _draw_panel(axes, table, row, limits):
    """Draw cells, the box and the places of one library."""
    from matplotlib.patches import Rectangle

    height, width = table.features.shape[1:]
    left, right, top, bottom = limits
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", facecolor="#dddddd")
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, facecolor="white", zorder=0))
    axes.vlines(np.arange(width + 1) - 0.5, -0.5, height - 0.5, color="#cccccc", linewidth=0.6, zorder=1)
    axes.hlines(np.arange(height + 1) - 0.5, -0.5, width - 0.5, color="#cccccc", linewidth=0.6, zorder=1)
    x1, y1, x2, y2 = table.roi * table.spatial_scale - 0.5
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=_BOX, linewidth=2.2, zorder=2))
    if row.operator == "roi_pool":
        for x, y in row.points:
            axes.add_patch(Rectangle((x - 0.36, y - 0.36), 0.72, 0.72, facecolor=_MAXIMUM, zorder=3))
    else:
        size = min(26, 900 / max(len(row.points), 1))
        axes.scatter(*row.points.T, s=size, color=_SAMPLE, zorder=3, linewidths=0)
    axes.set_title("\n".join(textwrap.wrap(row.name, 24)), fontsize=9, pad=4)
    _number_axes(axes, left, right, top, bottom)
    axes.set_xlabel(_numbers(row.output[0]) + "\n", fontsize=8)


def _number_axes(axes, left, right, top, bottom):
    """Number cells, few of many."""
    for axis, low, high in ((axes.xaxis, left, right), (axes.yaxis, top, bottom)):
        step = math.ceil((high - low) / 8)
        axis.set_ticks([i for i in range(math.ceil(low), math.floor(high) + 1) if i % step == 0])
    axes.tick_params(labelsize=7, length=2, pad=1)


def _numbers(output):
    """Return the first numbers as text, row by row."""
    rows = [" ".join(f"{value:.3g}" for value in row[:4]) + " ..." * (len(row) > 4) for row in output[:2]]
    return "\n".join(rows + ["..."] * (len(output) > 2))


def _legend(figure):
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor="none", edgecolor=_BOX, linewidth=2.2, label="the box; cell i covers i - 0.5 to i + 0.5"),
        Line2D([], [], marker="o", linestyle="", color=_SAMPLE, label="samples, interpolated"),
        Patch(facecolor=_MAXIMUM, label="cells taken as maxima"),
        Patch(facecolor="#dddddd", label="outside of the map"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
