"""The pictures of a `RoITrace`: the map with the box, its bins and samples, and the output beside it.

A cell covers the square from its number to the next, so that the box can be drawn where it is in the picture, times
``spatial_scale``; places, which count from the centre of the first cell, are drawn half a cell further.
"""

import io
import math

import numpy as np

from tinyseg.colours import HEX
from tinyseg.explain.rois.sheet import DIGIT_WIDTH, ENTRY, POINTS, sheet, text_size, view
from tinyseg.explain.rois.table import number

_BOX, _MOVED, CHOSEN, READ = HEX["vermilion"], HEX["blue"], HEX["orange"], HEX["reddish purple"]
_OFF, FILL = "#555555", f"{CHOSEN}61"


def svg(figure, title):
    """Return a figure as the text of an SVG file, the same whenever it is drawn.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    title : str
        What it shows, for those who cannot see it.

    Returns
    -------
    str
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tinyseg", "svg.image_inline": True}):
        figure.savefig(buffer, format="svg", metadata={"Title": title, "Date": None})
    return buffer.getvalue()


def draw(traces, channel, chosen=None, sample=None, *, beside, output=True):
    """Draw traces of one box.

    Parameters
    ----------
    traces : list of RoITrace
        The traces.
    channel : int
        Whose values.
    chosen : (int, int) or None
        Which bin is marked.
    sample : int or None
        Which sample of that bin alone.
    beside : bool
        Whether the output stands beside the map, not below it.
    output : bool
        False leaves the output out.

    Returns
    -------
    matplotlib.figure.Figure
        Its first axes hold the first map.
    """
    legend = _legend(traces, chosen)
    figure, on_maps, on_outputs = sheet(traces, beside, output, len(legend))
    for trace, on_map in zip(traces, on_maps, strict=True):
        draw_map(on_map, trace, channel, chosen, sample)
    for trace, on_output in zip(traces, on_outputs, strict=output):
        draw_output(on_output, trace, channel, chosen)
    corners, scale = ", ".join(number(corner, 4) for corner in traces[0].roi), number(traces[0].spatial_scale, 4)
    whole_height, columns = figure.get_size_inches()[1], _legend_columns(figure, len(legend))
    figure.text(
        0.5, 1 - 0.2 / whole_height, f"box ({corners}) in picture pixels, spatial_scale {scale}", ha="center",
        va="center", size=10.5,
    )  # fmt: skip
    figure.legend(
        handles=legend, loc="lower center", ncols=columns, frameon=False, fontsize=8, handlelength=1.8,
        borderaxespad=0.2, columnspacing=1.5,
    )  # fmt: skip
    return figure


def _legend_columns(figure, entries):
    """Return how many entries of a legend stand side by side."""
    return min(entries, max(1, int(figure.get_size_inches()[0] / ENTRY)))


def _legend(traces, chosen):
    """Return the legend's entries."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    sampled = [trace for trace in traces if trace.op != "roi_pool"]
    handles: list = [
        Line2D([], [], color=_BOX, linestyle="--", linewidth=2, label="the box as given"),
        Line2D([], [], color=_MOVED, linewidth=1.8, label="its bins, where the operator has them"),
    ]
    if sampled:
        handles.append(Line2D([], [], linestyle="none", marker="o", markersize=5, color="black", label="sample"))
    if not all(axis.on_map[axis.times > 0].all() for trace in sampled for axis in (trace.rows, trace.columns)):
        label = "sample off the map, which gives 0"
        handles.append(Line2D([], [], linestyle="none", marker="x", markersize=5, color=_OFF, label=label))
    if chosen is not None:
        handles.append(Patch(facecolor=FILL, edgecolor=CHOSEN, label=f"bin {chosen}: row, column"))
        text = "cell that it reads, and its weight" if sampled else "its largest value"
        handles.append(Patch(facecolor="none", edgecolor=READ, linewidth=2, label=text))
    return handles


# ---- the map ---------------------------------------------------------------------------------------------------------


def draw_map(panel, trace, channel, chosen, sample):
    """Draw the map, the box, its bins and samples.

    Parameters
    ----------
    panel : Panel
        Where.
    trace : RoITrace
        The trace.
    channel : int
        Whose values.
    chosen : (int, int) or None
        Which bin is marked.
    sample : int or None
        Which sample of that bin alone.
    """
    axes, (left, top, right, bottom) = panel.axes, view(trace)
    height, width = trace.features.shape[1:]
    image = _picture(axes, trace.features[channel], trace, channel)
    first, last = (max(int(left), 0), max(int(top), 0)), (min(math.ceil(right), width), min(math.ceil(bottom), height))
    axes.hlines(range(first[1], last[1] + 1), 0, width, color="white", linewidth=0.8, zorder=1.5)
    axes.vlines(range(first[0], last[0] + 1), 0, height, color="white", linewidth=0.8, zorder=1.5)
    shown = trace.features[channel, first[1] : last[1], first[0] : last[0]]
    size = text_size(trace, panel.cell)
    if size is not None:
        for (row, column), value in np.ndenumerate(shown):
            axes.text(first[0] + column + 0.06, first[1] + row + 0.08, number(value, 3), size=size, va="top", zorder=6)
    elif panel.bar is not None:
        axes.figure.colorbar(image, cax=panel.bar).ax.tick_params(labelsize=7)
    x1, y1, x2, y2 = _within(trace.scaled, trace)
    _rectangle(axes, x1, y1, x2, y2, _BOX, linewidth=2.0, linestyle="--", zorder=5)
    if max(x1, x2) < left or min(x1, x2) > right or max(y1, y2) < top or min(y1, y2) > bottom:
        _say_where(axes, trace)
    if chosen is not None:
        _draw_chosen(panel, trace, channel, chosen, sample, size)
    (_draw_cells if trace.op == "roi_pool" else _draw_samples)(panel, trace)
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel="column", ylabel="row")
    axes.set_title(trace.title, fontsize=10)
    _number_cells(axes.xaxis, first[0], last[0])
    _number_cells(axes.yaxis, first[1], last[1])
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)


def _within(corners, trace):
    """Return corners moved to just beyond the part that is drawn, as huge numbers upset drawing programs."""
    left, top, right, bottom = view(trace)
    x1, y1, x2, y2 = corners
    x1, x2 = (float(np.clip(x, left - 5, right + 5)) for x in (x1, x2))
    return x1, float(np.clip(y1, top - 5, bottom + 5)), x2, float(np.clip(y2, top - 5, bottom + 5))


def _picture(axes, values, trace, channel):
    """Draw values as colours, in the range of the channel's map; light ones, so that what is drawn on them shows."""
    height, width = values.shape
    shown = np.ma.masked_invalid(values.astype(np.float64))
    colours, low, high = colour_range(trace, channel)
    return axes.imshow(shown, colours, vmin=low, vmax=high, extent=(0, width, height, 0), aspect="equal")


def colour_range(trace, channel):
    """Return the colours of a trace's values, and the values at their ends.

    Parameters
    ----------
    trace : RoITrace
        The trace.
    channel : int
        Which channel: its least and largest finite values are the ends.

    Returns
    -------
    colours : matplotlib.colors.Colormap
    low, high : float
    """
    good = trace.features[channel][np.isfinite(trace.features[channel])]
    low, high = (float(good.min()), float(good.max())) if good.size else (0.0, 1.0)
    return _light_cividis(), *((low, high) if low < high else (low - 1, high + 1))


def _light_cividis():
    """Return cividis, lightened; grey for what is not finite."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    colours = matplotlib.colormaps["cividis"](np.linspace(0, 1, 256))
    return ListedColormap(0.45 * colours + 0.55, "light cividis").with_extremes(bad="#dddddd")


def _number_cells(axis, first, end):
    """Number cells at their centres."""
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if end - first <= 16 * step), 500)
    cells = range(-(-first // step) * step, end, step)
    axis.set_ticks([cell + 0.5 for cell in cells], [str(cell) for cell in cells])


def _rectangle(axes, x1, y1, x2, y2, colour, **look):
    """Draw an outline with a white rim, so that it shows on every colour."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=1.8 * look["linewidth"], foreground="white")]
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, path_effects=rim, **look))


def _draw_cells(panel, trace):
    """Draw RoIPool's bins, every other one a little further in: neighbours may share cells."""
    for py, (top, bottom) in enumerate(zip(trace.rows.first, trace.rows.stop, strict=True)):
        for px, (left, right) in enumerate(zip(trace.columns.first, trace.columns.stop, strict=True)):
            inset = 0.05 + 0.08 * ((py + px) % 2)
            x1, y1, x2, y2 = _within((left + inset, top + inset, right - inset, bottom - inset), trace)
            _rectangle(panel.axes, x1, y1, x2, y2, _MOVED, linewidth=min(1.4, 3.4 * panel.cell), zorder=3)


def _draw_samples(panel, trace):
    """Draw bins and samples of RoIAlign or crop_and_resize."""
    axes, rows, columns = panel.axes, trace.rows, trace.columns
    x1, y1, x2, y2 = _within(tuple(corner + 0.5 for corner in trace.box), trace)
    _rectangle(axes, x1, y1, x2, y2, _MOVED, linewidth=1.6, zorder=3)
    if rows.edges is not None:
        left, top, right, bottom = view(trace)
        inner = (columns.edges[1:-1] + 0.5, rows.edges[1:-1] + 0.5)
        across, down = (
            edges[(edges > low) & (edges < high)]
            for edges, low, high in zip(inner, (left, top), (right, bottom), strict=True)
        )
        axes.vlines(across, y1, y2, color=_MOVED, linewidth=1.2, zorder=3)
        axes.hlines(down, x1, x2, color=_MOVED, linewidth=1.2, zorder=3)
    y, x = rows.place[rows.times > 0] + 0.5, columns.place[columns.times > 0] + 0.5
    y_on, x_on = rows.on_map[rows.times > 0], columns.on_map[columns.times > 0]
    grid_y, grid_x = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
    on_map = np.logical_and.outer(y_on, x_on).ravel()
    seen = (np.abs(grid_x) < 1e6) & (np.abs(grid_y) < 1e6)
    size = float(np.clip(panel.cell * 9, 2, 5))
    axes.plot(
        grid_x[on_map & seen], grid_y[on_map & seen], "o", color="black", markersize=size, markeredgecolor="white",
        markeredgewidth=0.14 * size, zorder=6,
    )  # fmt: skip
    axes.plot(grid_x[~on_map & seen], grid_y[~on_map & seen], "x", color=_OFF, markersize=size, zorder=6)


def _say_where(axes, trace):
    """Say in which direction a box lies that is not on the drawn part of the map."""
    (left, top, right, bottom), (x1, y1, x2, y2) = view(trace), trace.scaled
    beyond = {
        "above": max(y1, y2) < top,
        "below": min(y1, y2) > bottom,
        "to the left": max(x1, x2) < left,
        "to the right": min(x1, x2) > right,
    }
    where = ", ".join(words for words, there in beyond.items() if there)
    y = bottom - 1 if beyond["below"] else top + 1 if beyond["above"] else (top + bottom) / 2
    axes.text(
        (left + right) / 2, y, f"the box is off the map:\n{where}", size=9, ha="center", va="center",
        zorder=9, bbox={"facecolor": "white", "edgecolor": _BOX, "linestyle": "--", "linewidth": 1.6},
    )  # fmt: skip


def _draw_chosen(panel, trace, channel, chosen, sample, size):
    """Fill a bin, and outline the cells that count in it, with their weights."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    axes, (py, px) = panel.axes, chosen
    bounds = bin_bounds(trace, py, px)
    if bounds is not None:
        x1, y1, x2, y2 = _within(bounds, trace)
        fill = Rectangle((x1, y1), x2 - x1, y2 - y1, facecolor=FILL, edgecolor=CHOSEN, linewidth=1.5, zorder=2)
        axes.add_patch(fill)
    weights = trace.weights(py, px, channel)
    if sample is not None:
        one = trace.samples(py, px, channel)[sample]
        weights = np.zeros_like(weights)
        for cell in one.cells:
            weights[cell.row, cell.column] += cell.weight
    if bounds is None or sample is not None:
        points = trace.samples(py, px, channel)[slice(None) if sample is None else slice(sample, sample + 1)]
        axes.plot(
            [point.x + 0.5 for point in points], [point.y + 0.5 for point in points], "o", markersize=11,
            markerfacecolor="none", markeredgecolor=READ, markeredgewidth=2.2, zorder=6.5,
        )  # fmt: skip
    for row, column in np.argwhere(weights):
        _rectangle(axes, column + 0.02, row + 0.02, column + 0.98, row + 0.98, READ, linewidth=1.6, zorder=3.5)
        if size is not None and trace.op != "roi_pool":
            text = f"\N{MULTIPLICATION SIGN}{number(weights[row, column], 2)}"
            if len(text) * DIGIT_WIDTH * size > panel.cell * POINTS:  # a tiny one, in many digits
                continue
            axes.text(
                column + 0.94, row + 0.94, text, size=min(size, 8) * 0.92, ha="right", va="bottom", weight="bold",
                zorder=7, path_effects=[withStroke(linewidth=1.6, foreground="#ffffffb0")],
            )  # fmt: skip


def bin_bounds(trace, py, px):
    """Return where a bin is drawn.

    Parameters
    ----------
    trace : RoITrace
        The trace.
    py, px : int
        Which bin.

    Returns
    -------
    tuple of float or None
        Left, top, right, bottom in cells; crop_and_resize's bins have no extent.
    """
    rows, columns = trace.rows, trace.columns
    if trace.op == "roi_pool":
        return columns.first[px], rows.first[py], columns.stop[px], rows.stop[py]
    if rows.edges is None:
        return None
    edges = columns.edges[px], rows.edges[py], columns.edges[px + 1], rows.edges[py + 1]
    return tuple(float(edge) + 0.5 for edge in edges)


# ---- the output ------------------------------------------------------------------------------------------------------


def draw_output(panel, trace, channel, chosen):
    """Draw the output, in the colours of the map.

    Parameters
    ----------
    panel : Panel
        Where.
    trace : RoITrace
        The trace.
    channel : int
        Whose values.
    chosen : (int, int) or None
        Which bin is marked.
    """
    axes, values = panel.axes, trace.output[channel]
    down, across = values.shape
    _picture(axes, values, trace, channel)
    axes.hlines(range(down + 1), 0, across, color="white", linewidth=1.2)
    axes.vlines(range(across + 1), 0, down, color="white", linewidth=1.2)
    for digits in (4, 3, 2):  # fewer where more do not fit
        texts = [[number(value, digits) for value in row] for row in values.tolist()]
        longest = max(len(text) for row in texts for text in row)
        size = min(11, 0.9 * panel.cell * POINTS / (longest * DIGIT_WIDTH))
        if size >= 5.5:
            break
    if size >= 4.5:
        for (row, column), text in np.ndenumerate(np.array(texts, object)):
            axes.text(column + 0.5, row + 0.5, text, size=size, ha="center", va="center_baseline")
    if chosen is not None:
        py, px = chosen
        _rectangle(axes, px + 0.03, py + 0.03, px + 0.97, py + 0.97, CHOSEN, linewidth=2.6, zorder=3)
    which = f", channel {channel}" if len(trace.features) > 1 else ""
    axes.set_title(f"output: a number a bin{which}", fontsize=10)
    axes.set(xlabel="bin column", ylabel="bin row", xlim=(-0.02, across + 0.02), ylim=(down + 0.02, -0.02))
    _number_cells(axes.xaxis, 0, across)
    _number_cells(axes.yaxis, 0, down)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
