"""The picture of a check of gradients: every element a cell, coloured by its verdict."""

import math

import numpy as np

from tinyseg.colours import HEX

_LARGEST_CELL = 0.42  # inches
_PLAIN = "#e4e4e4"  # elements that were not drawn
_PLANES = 16  # of an input, at most; the figure says how many are left out


def draw_verdicts(verdicts, looks, title, width):
    """Draw inputs one below the other.

    Parameters
    ----------
    verdicts : dict of str to ndarray of str
        Of each input's elements.
    looks : dict of str to tuple
        For each verdict its colour's name, the letter in its cells, and what it means.
    title : str
    width : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from matplotlib.patches import Patch

    sheets = {name: _sheet(array) for name, array in verdicts.items()}
    room = width - 0.9
    cells = {name: min(_LARGEST_CELL, room / max(sheet.shape[1], 4)) for name, (sheet, *_) in sheets.items()}
    heights = {name: max(cells[name] * sheet.shape[0], 0.3) + 0.75 for name, (sheet, *_) in sheets.items()}
    top, bottom = 0.4, 0.45
    height = sum(heights.values()) + top + bottom
    figure = Figure(figsize=(width, height), dpi=100)
    figure.text(0.1 / width, 1 - 0.12 / height, title, fontsize=11, va="top", weight="bold")
    y = height - top
    for name, (sheet, planes, note) in sheets.items():
        size = cells[name]
        y -= heights[name]
        box = (0.6 / width, (y + 0.4) / height, size * sheet.shape[1] / width, size * sheet.shape[0] / height)
        axes = figure.add_axes(box)
        _draw(axes, sheet, looks, size)
        shape = " x ".join(map(str, verdicts[name].shape)) or "a number"
        many = ", plane after plane" if len(planes[0]) > 1 else ""
        axes.set_title(f"{name} ({shape}{many}){note}", fontsize=9, loc="left", pad=4)
        _number(axes, sheet, planes, size)
    present = [name for name in looks if any(name in sheet for sheet, *_ in sheets.values())]
    handles = [
        Patch(facecolor=_colour(looks[name][0]), edgecolor="#555555", linewidth=0.5,
              label=f"{looks[name][2]} ({looks[name][1]})" if looks[name][1] else looks[name][2])
        for name in present
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower left", ncols=len(handles), fontsize=9, frameon=False,
                  bbox_to_anchor=(0.4 / width, 0))  # fmt: skip
    return figure


def _colour(name):
    return _PLAIN if name is None else HEX[name]


def _sheet(array):
    """Return an array of any axes as one map, of planes with an empty line between them; their places; and a note."""
    rows, columns = (1, 1, *array.shape)[-2:]
    planes = array.reshape(-1, rows, columns)
    note = "" if len(planes) <= _PLANES else f", the first {_PLANES} of {len(planes)} planes"
    planes = planes[:_PLANES]
    across = len(planes) if len(planes) * (columns + 1) <= 40 else max(1, min(len(planes), 40 // (columns + 1)))
    down = math.ceil(len(planes) / across)
    sheet = np.full((down * (rows + 1) - 1, across * (columns + 1) - 1), "", dtype="<U9")
    corners = []
    for i, plane in enumerate(planes):
        corner = (i // across * (rows + 1), i % across * (columns + 1))
        sheet[corner[0] : corner[0] + rows, corner[1] : corner[1] + columns] = plane
        corners.append(corner)
    return sheet, (corners, rows, columns), note


def _draw(axes, sheet, looks, size):
    """Draw the cells."""
    from matplotlib.colors import to_rgb

    picture = np.ones((*sheet.shape, 3))
    for name, (colour, letter, _) in looks.items():
        found = sheet == name
        picture[found] = to_rgb(_colour(colour))
        if letter and size >= 0.14:
            for row, column in zip(*np.nonzero(found), strict=True):
                axes.text(column, row, letter, ha="center", va="center", fontsize=min(9, 50 * size),
                          color="white" if name == "wrong" else "black", weight="bold")  # fmt: skip
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    if size >= 0.08:
        for row, column in zip(*np.nonzero(sheet != ""), strict=True):
            axes.add_patch(_outline(column, row))
    for side in axes.spines.values():
        side.set_visible(False)


def _outline(column, row):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=0.8)


def _number(axes, sheet, planes, size):
    """Number rows and columns of each plane from 0."""
    corners, rows, columns = planes
    every = max(1, math.ceil(0.2 / size))
    places = sorted({(corner[1] + i, i) for corner in corners for i in range(0, columns, every)})
    axes.set_xticks([place for place, _ in places], [number for _, number in places], fontsize=6)
    places = sorted({(corner[0] + i, i) for corner in corners for i in range(0, rows, every)})
    axes.set_yticks([place for place, _ in places], [number for _, number in places], fontsize=6)
    axes.tick_params(length=0, pad=1)
    axes.set_xlabel("column" if sheet.size > 1 else "", fontsize=7, labelpad=1)
    axes.set_ylabel("row" if len(sheet) > 1 else "", fontsize=7, labelpad=1)
