"""The picture of gradients of RoI operators: maps of the gradient, of additions, and of what their order does."""

import numpy as np

from tinyseg.colours import HEX
from tinyseg.explain.rois.calls import TITLES

_BOX = HEX["vermilion"]
_MOST_BOXES = 12  # more are not drawn
_SMALLEST_TEXT, _POINTS = 5, 72  # points, and points in an inch
#: Counts beyond this have colours by their logarithm.
_LARGE_COUNT = 50


def draw(found, picture, channel):
    """Draw `RoIGradients`: a column for each operator.

    Parameters
    ----------
    found : RoIGradients
    picture : int
    channel : int or None

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from matplotlib.ticker import MaxNLocator

    ops = list(found.ops)
    rows = _rows(found, picture, channel)
    height, width = found.features.shape[2:]
    side = min(max(2.9, 8.4 / len(ops)), 4.2)
    size = (side * len(ops) + 1.0, len(rows) * (0.9 * side * min(max(height / width, 0.4), 1.6) + 0.6) + 0.8)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(len(rows), len(ops), squeeze=False)
    for line, (name, maps, captions) in zip(panels, rows, strict=True):
        colours, scale = _scale(maps)
        for axes, op, values, caption in zip(line, ops, maps, captions, strict=True):
            image = axes.imshow(np.ma.masked_equal(values, 0), colours, norm=scale)
            _outline(axes, found, picture)
            _write_numbers(axes, values, image, 0.85 * side * _POINTS / width)
            axes.set_title(f"{TITLES[op]}\n{caption}", fontsize=9)
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), facecolor="#f2f2f2")
            axes.tick_params(labelsize=7)
        line[0].set_ylabel("row of cells", fontsize=8)
        whole = MaxNLocator(integer=True) if maps[0].dtype.kind == "i" and scale.vmax <= _LARGE_COUNT else None
        bar = figure.colorbar(image, ax=list(line), fraction=0.04, pad=0.01, ticks=whole)
        bar.set_label(name, fontsize=9)
        bar.ax.tick_params(labelsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("column of cells", fontsize=8)
    boxes = "1 box" if len(found.rois) == 1 else f"{len(found.rois)} boxes"
    what = f"{boxes} of {found.output_size[0]}x{found.output_size[1]} bins"
    if found.dy.shape[1] > 1:
        what += f", channel {channel}" if channel is not None else f", all {found.dy.shape[1]} channels"
    elif len(found.rois) <= _MOST_BOXES:
        what += ", outlined"
    figure.suptitle(f"Gradient of {what}; grey: 0", fontsize=11)
    return figure


def _rows(found, picture, channel):
    """Return for each row what it shows, its maps, and a line above each."""

    def flat(maps):
        return maps[picture].sum(axis=0) if channel is None else maps[picture, channel]

    def largest(maps):
        return maps[picture].max(axis=0) if channel is None else maps[picture, channel]

    gradients = [flat(each.gradient.astype(np.float64)) for each in found.ops.values()]
    additions = [flat(each.additions) for each in found.ops.values()]
    mine = found.rois[:, 0] == picture
    given = found.dy[mine].sum(dtype=np.float64) if channel is None else found.dy[mine, channel].sum(dtype=np.float64)
    rows = [
        ("gradient", gradients, [f"{each.sum():.6g} of {given:.6g} arrives" for each in gradients]),
        ("additions", additions, [f"{each.sum()} additions, at most {each.max()} to a cell" for each in additions]),
    ]
    orders = [each.orders for each in found.ops.values()]
    if all(each is not None and (channel is None or channel < each.channels) for each in orders):
        how = {"GPU": "atomic operations, GPU", "simulator": "atomic operations, simulator", "replay": "replayed"}
        maps = [largest(each.off_by) for each in orders]
        captions = [f"{np.count_nonzero(each)} cells differ, by at most {each.max()} ulp" for each in maps]
        rows.append((f"difference between orders, ulp\n({how[orders[0].how]})", maps, captions))
    return rows


def _scale(maps):
    """Return the colours of a row of maps, and the scale that they share: logarithmic for large counts."""
    from matplotlib.colors import LogNorm, Normalize

    low, high = min(each.min() for each in maps), max(each.max() for each in maps)
    if low < 0:
        most = max(-low, high)
        return "PuOr", Normalize(-most, most)
    if maps[0].dtype.kind == "i" and high > _LARGE_COUNT:
        return "cividis", LogNorm(1, high)
    return "cividis", Normalize(0, high or 1)


def _outline(axes, found, picture):
    """Draw the boxes, where they are few: cell i covers i - 0.5 to i + 0.5."""
    from matplotlib.patches import Rectangle

    boxes = found.rois[found.rois[:, 0] == picture, 1:] * found.spatial_scale - 0.5
    if len(boxes) <= _MOST_BOXES:
        for x1, y1, x2, y2 in boxes:
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=_BOX, linewidth=1.6))


def _write_numbers(axes, values, image, room):
    """Write values into cells that have so much room, in points, where that is enough."""
    texts = {place: _number(value) for place, value in np.ndenumerate(values) if value}
    size = min(8.0, room / (0.64 * max(map(len, texts.values()), default=1)))
    if size < _SMALLEST_TEXT:
        return
    for (row, column), text in texts.items():
        red, green, blue, _ = image.to_rgba(values[row, column])
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")


def _number(value):
    return str(round(value)) if value == round(value) else f"{value:.2g}"
