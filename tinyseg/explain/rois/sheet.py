"""How large the pictures of a `RoITrace` are, which part of the map they show, and where their axes stand."""

import math
from typing import Any, NamedTuple

from tinyseg.explain.rois.table import number

_LARGEST_CELL, _WIDEST, _TALLEST, _LARGEST_BIN = 0.66, 6.2, 5.2, 0.72  # inches
_LEFT, _BAR, ENTRY = 0.55, 0.55, 2.5  # inches: numbers of rows, bar of colours, an entry of the legend
POINTS, DIGIT_WIDTH = 72, 0.62  # points in an inch; width of a digit as a share of the text's size
#: Maps of up to so many cells a side are drawn whole, of larger ones the surroundings of the box.
_WHOLE = 16
#: So much of the box is drawn around the map, in cells.
_MARGIN = 2.5


class Panel(NamedTuple):
    """Axes to draw on, and the side of a cell there in inches; beside a map there may be axes for a bar of colours."""

    axes: Any
    cell: float
    bar: Any = None


def view(trace):
    """Return which part of the map is drawn, in cells.

    Parameters
    ----------
    trace : RoITrace
        The trace.

    Returns
    -------
    tuple of float
        Left, top, right, bottom.
    """
    ends = []
    for axis, size in ((0, trace.features.shape[2]), (1, trace.features.shape[1])):
        half = 0 if trace.op == "roi_pool" else 0.5
        beyond = 1 if trace.op == "roi_pool" else half
        places = (*trace.scaled[axis::2], trace.box[axis] + half, trace.box[axis + 2] + beyond)
        low, high = min(places) - 0.3, max(places) + 0.3
        if size <= _WHOLE:
            low, high = min(low, -0.05), max(high, size + 0.05)
        low, high = (min(max(end, -_MARGIN), size + _MARGIN) for end in (low, high))
        if size > _WHOLE:  # whole cells on the map, so that no value is cut off
            low, high = math.floor(low) if low > 0 else low, math.ceil(high) if high < size else high
        if high - low < 3:  # all of it lies far away
            low, high = (-0.05, min(size, _WHOLE)) if high < 3 else (max(size - _WHOLE, 0), high)
        ends.append((low, high))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def sheet(traces, beside, output, entries):
    """Return a figure of the size that traces need, its axes of maps and of outputs, with their cells' inches.

    ``entries`` is how many the legend has.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    views, (down, across) = [view(trace) for trace in traces], traces[0].output_size
    most = (_WIDEST, _TALLEST) if beside else (2.9, 2.9)
    cell = min(min(_LARGEST_CELL, most[0] / (v[2] - v[0]), most[1] / (v[3] - v[1])) for v in views)
    most = (3.8, _TALLEST) if beside else (2.6, 2.2)
    side = min(_LARGEST_BIN, most[0] / across, most[1] / down)
    wide, tall = max((v[2] - v[0]) * cell for v in views), max((v[3] - v[1]) * cell for v in views)
    bar = _BAR * any(text_size(trace, cell) is None for trace in traces)
    slots = [_LEFT + max(wide, 1.9) + bar] * len(traces)
    slots += [_LEFT + max(across * side, 2.0)] * (beside and output)
    below = _LEFT * bool(output and not beside) * 2 + down * side * (output and not beside)
    tallest = max(tall, down * side) if beside and output else tall
    width = max(sum(slots) + 0.2, 4.2)
    rows = -(-entries // max(1, int(width / ENTRY)))
    height = 0.4 + 0.32 + tallest + below + 0.5 + 0.22 * rows
    figure = Figure(figsize=(width, height), dpi=100)
    left, maps, outputs = (width - sum(slots) - 0.2) / 2 + _LEFT, [], []
    middle = 0.22 * rows + 0.5 + below + tallest / 2
    for (x1, y1, x2, y2), slot in zip(views, slots, strict=False):
        size, room = ((x2 - x1) * cell, (y2 - y1) * cell), slot - _LEFT - bar
        place = left + (room - size[0]) / 2, middle - size[1] / 2
        axes = _axes(figure, *place, *size)
        maps.append(Panel(axes, cell, _axes(figure, place[0] + size[0] + 0.1, place[1], 0.1, size[1]) if bar else None))
        if output and not beside:
            place = left + (room - across * side) / 2, 0.22 * rows + 0.5
            outputs.append(Panel(_axes(figure, *place, across * side, down * side), side))
        left += slot
    if output and beside:
        place = left + (slots[-1] - _LEFT - across * side) / 2, middle - down * side / 2
        outputs.append(Panel(_axes(figure, *place, across * side, down * side), side))
    return figure, maps, outputs


def _axes(figure, left, bottom, width, height):
    """Return axes at a place in inches."""
    whole_width, whole_height = figure.get_size_inches()
    place = (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    return figure.add_axes(place)


def text_size(trace, cell):
    """Return the size of a map's values in points, for cells of so many inches; None if they do not fit."""
    left, top, right, bottom = (max(int(end), 0) for end in view(trace))
    seen = trace.features[:, top : bottom + 1, left : right + 1]
    longest = max(len(number(value, 3)) for value in (seen.min(), seen.max(), *seen.ravel()[:500].tolist()))
    size = min(8.5, 0.86 * cell * POINTS / (longest * DIGIT_WIDTH), 0.32 * cell * POINTS)
    return size if size >= 4.5 else None
