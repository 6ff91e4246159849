"""Small maps side by side, with their values written in the cells and windows marked: the figure for work by hand."""

import math
from typing import NamedTuple

import numpy as np

from tinyseg.colours import OKABE_ITO
from tinyseg.explain import checks

_ORDER = ("vermilion", "bluish green", "sky blue", "reddish purple", "orange", "blue", "yellow")
_LARGEST_CELL, _SMALLEST_MAP, _TALLEST_MAP = 0.56, 1.1, 4.6  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 0.55, 0.15, 0.1, 0.42, 0.6  # inches around and between maps
_BAR, _WORD = 0.75, 0.45  # inches for a bar of colours and its numbers, and for the word "column"
_LARGEST_TEXT, _SMALLEST_TEXT = 11, 5  # points
_POINTS, _DIGIT_WIDTH = 72, 0.64  # points in an inch; width of a digit as a share of the text's size


class Mark(NamedTuple):
    """A rectangle around cells of one of the maps that `maps` draws.

    Attributes
    ----------
    map : int
        Which map, from 0.
    row, column : float
        Its upper left corner, in cells of that map: the cell in row r and column c reaches from r to r + 1 and from c
        to c + 1. Fractions are drawn where they lie.
    height, width : float
        Its size in cells.
    label : str, optional
        What it marks, shown in the legend below. Marks with the same label have the same colour.
    colour : str, optional
        A name of ``tinyseg.colours.OKABE_ITO``, or any colour of matplotlib's; one for each label if left out.

    Examples
    --------
    >>> import tinyseg
    >>> tinyseg.explain.Mark(0, 1, 2, label="largest").height
    1
    """

    map: int
    row: float
    column: float
    height: float = 1
    width: float = 1
    label: str | None = None
    colour: str | None = None


def maps(
    *arrays,
    titles=None,
    operators=None,
    marks=(),
    origins=None,
    scale="own",
    values=True,
    digits=3,
    title=None,
    width=9.6,
):
    """Draw small maps side by side, with the value of each cell written in it.

    A map with values of both signs is drawn in blue (negative) and red (positive), white at 0; any other from dark
    (low) to yellow (high). Masked cells (of ``numpy.ma``) stay empty, NaN and infinite ones are grey. Maps whose cells
    are too small for their values have a bar of colours instead.

    Parameters
    ----------
    *arrays : ndarray or Tensor, shape (H, W)
        The maps, of numbers or bools; axes of length 1 before the last two are left out.
    titles : sequence of str, optional
        One above each map.
    operators : sequence of str, optional
        What stands between neighbouring maps, such as ``["*", "="]``: one less than there are maps.
    marks : sequence of Mark
        Rectangles around cells.
    origins : sequence of (int, int), optional
        Row and column number of each map's upper left cell, such as (-1, -1) for a map with a border of padding; marks
        are placed by these numbers too. All (0, 0) if left out.
    scale : {"own", "shared"} or (float, float)
        The range of the colours: of each map's values, of the values of all maps, or from low to high.
    values : bool
        Write values where they fit; False never does.
    digits : int
        Significant digits of numbers that are not whole.
    title : str, optional
        Above all of them.
    width : float
        Of the figure, in inches, where the maps need so much; they are drawn smaller rather than wider.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; a notebook shows it as the last value of a cell, and ``savefig`` writes it.

    Raises
    ------
    TypeError
        If an array holds no numbers or bools, no array is given, or another argument is of another kind.
    ValueError
        If an array has no rows and columns, a mark names no map, or the number of titles, operators or origins is not
        that of the maps.

    Examples
    --------
    The window of a convolution beside its kernel and its output:

    >>> import numpy as np
    >>> import tinyseg
    >>> x = np.arange(25.0).reshape(1, 1, 5, 5)
    >>> kernel = np.array([[-1.0, 0.0, 1.0]] * 3)[None, None]
    >>> y = tinyseg.ops.conv2d(tinyseg.Tensor(x), tinyseg.Tensor(kernel))
    >>> figure = tinyseg.explain.maps(
    ...     x,
    ...     kernel,
    ...     y,
    ...     titles=["x", "kernel", "y"],
    ...     operators=["*", "="],
    ...     marks=[tinyseg.explain.Mark(0, 1, 2, 3, 3, "window"), tinyseg.explain.Mark(2, 1, 2, label="its output")],
    ... )
    >>> [axes.get_title() for axes in figure.axes]
    ['x', 'kernel', 'y']

    A map with a border of padding, whose rows and columns are counted from -1:

    >>> padded = tinyseg.explain.maps(
    ...     np.pad(x[0, 0], 1), origins=[(-1, -1)], marks=[tinyseg.explain.Mark(0, 0, 0, 5, 5)]
    ... )
    >>> padded.axes[0].get_yticklabels()[0].get_text()
    '-1'
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    tables = [_table(i, array) for i, array in enumerate(arrays)]
    if not tables:
        raise TypeError("no array was given; expected at least one map")
    titles = _one_each("titles", titles, len(tables), "")
    operators = _one_each("operators", operators, len(tables) - 1, "")
    origins = _one_each("origins", origins, len(tables), (0, 0))
    origins = [checks.wholes("origins", origin, "row and column of each map", 2) for origin in origins]
    digits, width = checks.whole("digits", digits, 1), checks.above_zero("width", width)
    marks = [_checked_mark(i, mark, len(tables)) for i, mark in enumerate(checks.several("marks", marks, "a list"))]
    looks, outlines = _colours_of(tables, scale), _mark_colours(marks)
    gaps = [max(_GAP, _text_size(operator, 16)[0] + 0.4) for operator in operators]
    cells, texts = _fit(tables, width - _LEFT - _RIGHT - sum(gaps), values, digits)
    legend = [(label, colour) for label, colour in outlines.items() if label is not None]

    boxes = [(table.shape[1] * cell, table.shape[0] * cell) for table, cell in zip(tables, cells, strict=True)]
    heads = [_text_size(head, 10) for head in titles]
    slots = [max(_WORD, box[0], head[0]) for box, head in zip(boxes, heads, strict=True)]
    bars = [_BAR if text is None else 0 for text in texts]
    content, tallest = sum(slots) + sum(bars) + sum(gaps), max(height for _, height in boxes)
    below, above = _BOTTOM + 0.3 * bool(legend), _TOP + max(head[1] for head in heads) + 0.08 + 0.32 * bool(title)
    size = (max(_LEFT + content + _RIGHT, _text_size(title or "", 12)[0] + 0.3), below + tallest + above)
    figure = Figure(figsize=size, dpi=100)
    left, middle = (size[0] - content + _LEFT - _RIGHT) / 2, below + tallest / 2
    for i, table in enumerate(tables):
        place = (left + (slots[i] - boxes[i][0]) / 2, middle - boxes[i][1] / 2, *boxes[i])
        axes = _axes(figure, place)
        image = _draw(axes, table, looks[i], texts[i], origins[i], first=i == 0)
        axes.set_title(titles[i], fontsize=10)
        _draw_marks(axes, [mark for mark in marks if mark.map == i], outlines)
        if bars[i]:
            right = place[0] + (place[2] + max(_WORD, place[2])) / 2
            bar = _axes(figure, (right + 0.1, place[1], 0.12, place[3]), label="colours")
            figure.colorbar(image, cax=bar).ax.tick_params(labelsize=8)
        left += slots[i] + bars[i]
        if i < len(operators):
            _write(figure, left + gaps[i] / 2 - 0.06, middle, operators[i].replace("*", "\N{ASTERISK OPERATOR}"), 16)
            left += gaps[i]
    if title:
        _write(figure, size[0] / 2, size[1] - 0.22, title, 12)
    if legend:
        _draw_legend(figure, legend)
    return figure


# ---- what is given ---------------------------------------------------------------------------------------------------


def _table(number, array):
    """Return a map as a masked array of two axes."""
    name = f"array {number}"
    table = array if isinstance(array, np.ma.MaskedArray) else np.ma.asarray(checks.numbers(name, array, "biuf"))
    if table.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {table.dtype}; expected numbers")
    if table.ndim < 2 or table.size == 0 or max(table.shape[:-2], default=1) > 1:
        raise ValueError(f"array {number} has shape {table.shape}; expected (H, W), with axes of length 1 before them")
    return table.reshape(table.shape[-2:])


def _one_each(name, given, count, default):
    """Return what is given for each map, or defaults."""
    if given is None:
        return [default] * count
    given = list(given) if isinstance(given, str) else checks.several(name, given, "a list, one for each map")
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} entries; expected {count}")
    return given


def _checked_mark(number, mark, count):
    """Return a mark, also where it came as a plain tuple."""
    if not isinstance(mark, tuple | list) or not 3 <= len(mark) <= len(Mark._fields):
        raise TypeError(f"mark {number} is {mark!r}; expected a Mark, or a tuple like one")
    mark = Mark(*mark)
    if mark.map not in range(count):
        raise ValueError(f"mark {number} is on map {mark.map}; expected 0 to {count - 1}")
    return mark


# ---- sizes and texts -------------------------------------------------------------------------------------------------


def _fit(tables, width, values, digits):
    """Return the side of each map's cells, and its texts or None, such that all fit into a width in inches."""
    for bars in range(len(tables) + 1):  # a map without texts needs a bar, which leaves less for the others
        cells = _cell_sizes(tables, width - bars * _BAR)
        texts = [_texts(table, cell, digits) if values else None for table, cell in zip(tables, cells, strict=True)]
        if texts.count(None) <= bars:
            break
    return cells, texts


def _cell_sizes(tables, width):
    """Return the side of each map's cells in inches: the same for all, but for maps that would become tiny."""
    least = [min(_LARGEST_CELL, _SMALLEST_MAP / max(table.shape)) for table in tables]
    common = min(_LARGEST_CELL, _TALLEST_MAP / max(map(len, tables)))
    for _ in tables:  # a map that is drawn larger than its share leaves less for the others
        larger = [size > common for size in least]
        if all(larger):
            break
        columns = [table.shape[1] for table in tables]
        rest = width - sum(size * n for size, n, own in zip(least, columns, larger, strict=True) if own)
        common = min(common, rest / sum(n for n, own in zip(columns, larger, strict=True) if not own))
    return [max(common, size) for size in least]


def _texts(table, cell, digits):
    """Return the text of each cell and its size in points, or None where cells are too small."""
    texts = [
        ["" if masked else _number(value, digits) for value, masked in zip(*row, strict=True)]
        for row in zip(table.data.tolist(), np.ma.getmaskarray(table).tolist(), strict=True)
    ]
    longest = max(1, max(len(text) for row in texts for text in row))
    size = min(_LARGEST_TEXT, 0.9 * cell * _POINTS / (longest * _DIGIT_WIDTH), 0.6 * cell * _POINTS)
    return (texts, size) if size >= _SMALLEST_TEXT else None


def _number(value, digits):
    """Return a number as text: whole ones as such, others with few digits."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if 10**digits <= abs(value) < 1e6:
        return str(round(value))
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _text_size(text, points):
    """Return the width and height in inches of text of one or more lines."""
    from matplotlib.textpath import TextPath

    lines = text.split("\n")
    widest = max(TextPath((0, 0), line, size=points).get_extents().width if line else 0 for line in lines)
    return widest / _POINTS, 1.25 * points * len(lines) / _POINTS if text else 0


# ---- colours ---------------------------------------------------------------------------------------------------------


def _colours_of(tables, scale):
    """Return the colour map of each map, and the values at its ends."""
    if isinstance(scale, str) and scale == "own":
        return [_range(_finite(table)) for table in tables]
    if isinstance(scale, str) and scale == "shared":
        return [_range(np.concatenate([_finite(table) for table in tables]))] * len(tables)
    expected = f"scale is {scale!r}; expected 'own', 'shared' or (low, high)"
    if isinstance(scale, str):
        raise ValueError(expected)
    ends = checks.numbers("scale", scale, "fiu")
    if ends.shape != (2,) or not np.isfinite(ends).all():
        raise ValueError(expected)
    return [_range(ends)] * len(tables)


def _finite(table):
    """Return the values of a map that are shown and finite."""
    shown = table.compressed().astype(np.float64)
    return shown[np.isfinite(shown)]


def _range(values):
    """Return the name of a colour map and the values at its ends."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low < 0 < high:
        return "RdBu_r", -max(-low, high), max(-low, high)
    return ("cividis", low, high) if low < high else ("cividis", low - 1, high + 1)


def _mark_colours(marks):
    """Return the colour of each label."""
    from matplotlib.colors import is_color_like, to_rgb

    colours: dict = {}
    for mark in marks:
        if mark.colour is not None or mark.label not in colours:
            name = _ORDER[len(colours) % len(_ORDER)] if mark.colour is None else mark.colour
            if name not in OKABE_ITO and not is_color_like(name):
                raise ValueError(f"marks has colour {name!r}; expected one of {', '.join(OKABE_ITO)}, or matplotlib's")
            colours[mark.label] = tuple(part / 255 for part in OKABE_ITO[name]) if name in OKABE_ITO else to_rgb(name)
    return colours


def _ink(colour):
    """Return black or white, whichever is easier to read on a colour (contrast as in WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _axes(figure, place, **look):
    """Return axes at (left, bottom, width, height) in inches."""
    whole_width, whole_height = figure.get_size_inches()
    left, bottom, width, height = place
    place = (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    return figure.add_axes(place, **look)


def _write(figure, x, y, text, points):
    """Write a text around a place given in inches."""
    width, height = figure.get_size_inches()
    figure.text(x / width, y / height, text, ha="center", va="center", size=points)


def _draw(axes, table, look, texts, origin, first):
    """Draw one map: colours, lines between cells, values, and numbers of rows and columns."""
    name, low, high = look
    (rows, columns), (top, left) = table.shape, origin
    shown = np.ma.masked_invalid(table.astype(np.float64))
    image = axes.imshow(shown, name, vmin=low, vmax=high, extent=(left, left + columns, top + rows, top), aspect="auto")
    odd = ~np.isfinite(table.data.astype(np.float64)) & ~np.ma.getmaskarray(table)
    grey = np.ma.array(odd, mask=~odd)
    axes.imshow(grey, "gray", vmin=-3, vmax=2, extent=image.get_extent(), aspect="auto")  # a light one
    if texts is not None:
        axes.hlines(np.arange(1, rows) + top, left, left + columns, color="white", linewidth=0.6)
        axes.vlines(np.arange(1, columns) + left, top, top + rows, color="white", linewidth=0.6)
        filled = image.to_rgba(shown)
        for row, column in np.ndindex(rows, columns):
            ink = "black" if odd[row, column] else _ink(filled[row, column])
            axes.text(
                left + column + 0.5, top + row + 0.5, texts[0][row][column], color=ink, size=texts[1],
                ha="center", va="center_baseline", zorder=4,
            )  # fmt: skip
    for axis, start, count in ((axes.xaxis, left, columns), (axes.yaxis, top, rows)):
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if count <= 10 * step or step == 10**9)
        numbers = [number for number in range(start, start + count) if number % step == 0]
        axis.set_ticks([number + 0.5 for number in numbers], [str(number) for number in numbers], size=8)
    axes.tick_params(length=0 if texts else 3, pad=2)
    axes.set_xlabel("column", size=8, labelpad=2)
    if first:
        axes.set_ylabel("row", size=8, labelpad=2)
    return image


def _draw_marks(axes, marks, colours):
    """Draw rectangles, those of each colour a little further in, so that none hides another."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    limits = axes.get_xlim(), axes.get_ylim()
    for mark in marks:
        inset = 0.03 + 0.06 * (list(colours).index(mark.label) % 4)
        axes.add_patch(
            Rectangle(
                (mark.column + inset, mark.row + inset), mark.width - 2 * inset, mark.height - 2 * inset, fill=False,
                edgecolor=colours[mark.label], linewidth=2.4, clip_on=False, zorder=3,
                path_effects=[withStroke(linewidth=4.4, foreground="white")],
            )
        )  # fmt: skip
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_legend(figure, legend):
    """Say below the maps what each colour marks."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor="none", edgecolor=colour, linewidth=2.4, label=label) for label, colour in legend]
    figure.legend(
        handles=patches, loc="lower center", ncols=len(patches), frameon=False, fontsize=9, borderaxespad=0.1,
        handlelength=1.3, handleheight=1.1,
    )  # fmt: skip
