"""What RoIPool and RoIAlign make of one box on a small feature map, as pictures; the numbers come from the kernels."""

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


def pooled(operator, shift=0.0):
    """Return what an operator makes of the box.

    Parameters
    ----------
    operator : {"roi_pool", "roi_align"}
        The operator; `roi_align` is aligned.
    shift : float
        Cells by which the box is moved to the right.

    Returns
    -------
    ndarray
        (BINS, BINS) float64.
    """
    from tinyseg import Tensor, ops

    x1, y1, x2, y2 = BOX
    rois = np.array([[0, x1 + shift, y1, x2 + shift, y2]])
    x = Tensor(feature_map())
    if operator == "roi_pool":
        return ops.roi_pool(x, rois, BINS).numpy()[0, 0]
    return ops.roi_align(x, rois, BINS, sampling_ratio=SAMPLES, aligned=True).numpy()[0, 0]


def rounded_box():
    """Return first column, first row, last column + 1 and last row + 1 of the cells that RoIPool takes."""
    x1, y1, x2, y2 = (int(np.floor(value + 0.5)) for value in BOX)
    return x1, y1, x2 + 1, y2 + 1


def sample_points():
    """Return where RoIAlign reads the map.

    Returns
    -------
    ndarray
        (BINS, BINS, SAMPLES * SAMPLES, 2) float64: x and y of the points of each bin, in cells; a cell of column ``c``
        covers ``c`` to ``c + 1``.
    """
    x1, y1, x2, y2 = BOX
    along = (np.arange(BINS * SAMPLES) + 0.5) / (BINS * SAMPLES)
    xs = (x1 + along * (x2 - x1)).reshape(BINS, SAMPLES)
    ys = (y1 + along * (y2 - y1)).reshape(BINS, SAMPLES)
    return np.array([[[(x, y) for y in ys[row] for x in xs[column]] for column in range(BINS)] for row in range(BINS)])


def draw_pool():
    """Return a PNG file: the map, the box, and RoIPool's bins of whole cells with the largest number of each."""
    figure, on_map, on_result = _sheet()
    x1, y1, x2, y2 = rounded_box()
    for i, (row, column) in enumerate(np.ndindex(BINS, BINS)):
        width, height = (x2 - x1) / BINS, (y2 - y1) / BINS
        left, top = x1 + np.floor(column * width), y1 + np.floor(row * height)
        right, bottom = x1 + np.ceil((column + 1) * width), y1 + np.ceil((row + 1) * height)
        _bin(on_map, left, top, right, bottom, _BIN_COLOURS[i])
        largest = feature_map()[0, 0, int(top) : int(bottom), int(left) : int(right)]
        y, x = np.unravel_index(largest.argmax(), largest.shape)
        on_map.plot(left + x + 0.5, top + y + 0.5, "o", markersize=21, markerfacecolor="none", color="#222222")
    _box(on_map)
    _result(on_result, pooled("roi_pool"), "the largest number of each bin")
    return _png(figure)


def draw_align():
    """Return a PNG file: the map, the box, and RoIAlign's bins with their sample points and means."""
    figure, on_map, on_result = _sheet()
    x1, y1, x2, y2 = BOX
    width, height = (x2 - x1) / BINS, (y2 - y1) / BINS
    points = sample_points()
    for i, (row, column) in enumerate(np.ndindex(BINS, BINS)):
        left, top = x1 + column * width, y1 + row * height
        _bin(on_map, left, top, left + width, top + height, _BIN_COLOURS[i])
        on_map.plot(*points[row, column].T, "o", markersize=6, color="#222222", markeredgecolor="white")
    _box(on_map)
    _result(on_result, pooled("roi_align"), "the mean over each bin's points")
    return _png(figure)


def draw_slide():
    """Return a PNG file: how the first bin's number changes as the box slides to the right, by both operators."""
    from matplotlib.figure import Figure

    shifts = np.linspace(0, SLIDE, 251)
    figure = Figure(figsize=(7.2, 3.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    # jumps are drawn as gaps: no line joins the values before and after one
    steps = np.array([pooled("roi_pool", shift)[0, 0] for shift in shifts])
    steps -= steps[0]
    level = np.concatenate([[0], np.cumsum(np.diff(steps) != 0)])
    for number in range(level[-1] + 1):
        here = level == number
        label = "RoIPool" if number == 0 else None
        axes.plot(shifts[here], steps[here], color=_BOX_COLOUR, linewidth=2.6, label=label)
    slides = np.array([pooled("roi_align", shift)[0, 0] for shift in shifts])
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
