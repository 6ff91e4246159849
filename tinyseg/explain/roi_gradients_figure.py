"""The picture of gradients of RoI operators: maps of the gradient, of additions, and of what their order does."""

import numpy as np

from tinyseg.colours import OKABE_ITO
from tinyseg.explain.roi_calls import TITLES

_BOX = "#{:02x}{:02x}{:02x}".format(*OKABE_ITO["vermilion"])
#: More boxes than this are not drawn, more cells along an axis have no numbers in them.
_MOST_BOXES, _MOST_NUMBERED = 12, 9
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

    ops = list(found.ops)
    rows = _rows(found, picture, channel)
    height, width = found.features.shape[2:]
    side = max(2.9, 8.4 / len(ops))
    size = (side * len(ops) + 1.0, len(rows) * (0.9 * side * min(max(height / width, 0.4), 1.6) + 0.6) + 0.8)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(len(rows), len(ops), squeeze=False)
    for line, (name, maps, captions) in zip(panels, rows, strict=True):
        colours, scale = _scale(maps)
        for axes, op, values, caption in zip(line, ops, maps, captions, strict=True):
            image = axes.imshow(np.ma.masked_equal(values, 0), colours, norm=scale)
            _outline(axes, found, picture)
            _write_numbers(axes, values, image)
            axes.set_title(f"{TITLES[op]}\n{caption}", fontsize=9)
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), facecolor="#f2f2f2")
            axes.tick_params(labelsize=7)
        line[0].set_ylabel("row of cells", fontsize=8)
        bar = figure.colorbar(image, ax=list(line), fraction=0.04, pad=0.01)
        bar.set_label(name, fontsize=9)
        bar.ax.tick_params(labelsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("column of cells", fontsize=8)
    boxes = "1 box" if len(found.rois) == 1 else f"{len(found.rois)} boxes"
    what = f"{boxes} of {found.output_size[0]}x{found.output_size[1]} bins"
    where = f"channel {channel}" if channel is not None else f"all {found.dy.shape[1]} channels"
    figure.suptitle(f"Gradient of {what}, {where if found.dy.shape[1] > 1 else 'outlined'}; grey: 0", fontsize=11)
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


def _write_numbers(axes, values, image):
    """Write values into cells, where cells are few."""
    if max(values.shape) > _MOST_NUMBERED:
        return
    for (row, column), value in np.ndenumerate(values):
        if value:
            red, green, blue, _ = image.to_rgba(value)
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            text = f"{value:.2g}" if value != round(value) else str(round(value))
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
