"""What RoIPool and RoIAlign make of one box on a small feature map, as pictures; numbers are those of the kernels."""

import io

import numpy as np

from tinyseg.colours import OKABE_ITO

#: Rows and columns of the feature map, whose cells hold 0, 1, 2, ... in reading order.
MAP_SHAPE = (6, 8)
#: x1, y1, x2, y2 of the box, in cells.
BOX = (0.6, 0.7, 4.3, 4.4)
#: Bins across and down, and RoIAlign's samples per bin and axis.
BINS, SAMPLES = 2, 2
#: How far, in cells, the box slides.
SLIDE = 2.5

_BIN_COLOURS = [
    tuple(value / 255 for value in OKABE_ITO[name]) for name in ("sky blue", "orange", "bluish green", "reddish purple")
]
_BOX_COLOUR = tuple(value / 255 for value in OKABE_ITO["vermilion"])


def feature_map():
    """Return the feature map, (1, 1, H, W) float64."""
    return np.arange(MAP_SHAPE[0] * MAP_SHAPE[1], dtype=np.float64).reshape(1, 1, *MAP_SHAPE)


def trace(operator, shift=0.0):
    """Return how an operator comes from the box to its numbers.

    Parameters
    ----------
    operator : {"roi_pool", "roi_align"}
        The operator; `roi_align` is aligned.
    shift : float
        Cells by which the box is moved to the right.

    Returns
    -------
    tinyseg.explain.RoITrace
    """
    from tinyseg import explain

    x1, y1, x2, y2 = BOX
    how = {"sampling_ratio": SAMPLES, "aligned": True} if operator == "roi_align" else {}
    return explain.roi(feature_map(), (x1 + shift, y1, x2 + shift, y2), operator, output_size=BINS, **how)


def draw(operator):
    """Return a PNG file: the map, the box, the operator's bins, what it takes from each, and the numbers.

    Parameters
    ----------
    operator : {"roi_pool", "roi_align"}
        For RoIPool the largest number of each bin is circled; for RoIAlign its points are drawn.

    Returns
    -------
    bytes
    """
    from tinyseg.explain.rois.figure import bin_bounds

    figure, on_map, on_result = _sheet()
    made = trace(operator)
    for i, (row, column) in enumerate(np.ndindex(BINS, BINS)):
        left, top, right, bottom = bin_bounds(made, row, column)
        _bin(on_map, left, top, right, bottom, _BIN_COLOURS[i])
        if operator == "roi_pool":
            x, y = next((cell.column, cell.row) for cell in made.cells(row, column) if cell.weight)
            on_map.plot(x + 0.5, y + 0.5, "o", markersize=21, markerfacecolor="none", color="#222222")
        else:
            x, y = np.array([(sample.x, sample.y) for sample in made.samples(row, column)]).T
            on_map.plot(x + 0.5, y + 0.5, "o", markersize=6, color="#222222", markeredgecolor="white")
    _box(on_map)
    words = "the largest number of each bin" if operator == "roi_pool" else "the mean over each bin's points"
    _result(on_result, made.output[0], words)
    return _png(figure)


def draw_slide():
    """Return a PNG file: how the first bin's number changes as the box slides to the right, by both operators."""
    from matplotlib.figure import Figure

    shifts = np.linspace(0, SLIDE, 251)
    figure = Figure(figsize=(7.2, 3.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    # jumps are drawn as gaps: no line joins the values before and after one
    steps = np.array([trace("roi_pool", shift).output[0, 0, 0] for shift in shifts])
    steps -= steps[0]
    level = np.concatenate([[0], np.cumsum(np.diff(steps) != 0)])
    for number in range(level[-1] + 1):
        here = level == number
        label = "RoIPool" if number == 0 else None
        axes.plot(shifts[here], steps[here], color=_BOX_COLOUR, linewidth=2.6, label=label)
    slides = np.array([trace("roi_align", shift).output[0, 0, 0] for shift in shifts])
    axes.plot(shifts, slides - slides[0], color="#0072b2", linewidth=2.6, label="RoIAlign")
    axes.set(xlabel="the box has moved to the right by this many cells", ylabel="change of the first bin's number")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return _png(figure)


def _sheet():
    """Return a figure with the map drawn on one axes, and another axes for the result below it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.9), dpi=150, layout="constrained")
    on_map, on_result = figure.subplots(2, 1, height_ratios=(MAP_SHAPE[0], 1.8))
    values = feature_map()[0, 0]
    height, width = MAP_SHAPE
    on_map.imshow(values, cmap="Greys", vmin=-10, vmax=140, extent=(0, width, height, 0))
    for row, column in np.ndindex(*MAP_SHAPE):
        on_map.text(column + 0.5, row + 0.5, f"{values[row, column]:g}", ha="center", va="center", fontsize=9)
    on_map.set(xticks=range(width + 1), yticks=range(height + 1))
    on_map.grid(color="white", linewidth=1.2)
    on_map.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
    on_map.spines[:].set_visible(False)
    return figure, on_map, on_result


def _bin(axes, left, top, right, bottom, colour):
    """Draw a bin."""
    from matplotlib.patches import Rectangle

    fill = (*colour, 0.35)
    look = Rectangle((left, top), right - left, bottom - top, facecolor=fill, edgecolor=colour, linewidth=1.6)
    axes.add_patch(look).set_zorder(2.7)  # over the map's grid, under numbers and points


def _box(axes):
    """Draw the box as it is."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = BOX
    look = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=_BOX_COLOUR, linewidth=2.6, linestyle="--")
    axes.add_patch(look).set_zorder(2.8)


def _result(axes, values, words):
    """Draw the pooled numbers, each in its bin's colour."""
    for i, (row, column) in enumerate(np.ndindex(BINS, BINS)):
        _bin(axes, 2 * column, row, 2 * column + 1.92, row + 0.92, _BIN_COLOURS[i])
        axes.text(2 * column + 0.96, row + 0.46, f"{values[row, column]:.4g}", ha="center", va="center", fontsize=13)
    axes.set(xlim=(-0.5, 2 * BINS + 0.5), ylim=(BINS, -0.1), title=words)
    axes.title.set_fontsize(10)
    axes.axis("off")


def _png(figure):
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
