"""The picture of a moving box: outputs, their derivatives, and how far the output has gone."""

import numpy as np

from tinyseg.colours import HEX
from tinyseg.explain.rois.calls import TITLES

_BIN_COLOURS = ("blue", "vermilion", "bluish green", "reddish purple", "orange", "sky blue", "#333333")
_OP_LOOKS = {
    "roi_pool": ("vermilion", "-"),
    "crop_and_resize": ("reddish purple", ":"),
    "roi_align": ("blue", "--"),
    "roi_align_aligned": ("bluish green", "-"),
}
_JUMP = "#888888"


def draw(drag, channel, bins):
    """Draw a `RoIDrag`.

    Parameters
    ----------
    drag : RoIDrag
    channel : int
    bins : sequence of (int, int) or None

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    ops = list(drag.outputs)
    channels, rows, columns = drag.outputs[ops[0]].shape[1:]
    if channel not in range(channels):
        raise ValueError(f"channel is {channel!r}; expected 0 to {channels - 1}")
    bins = _chosen(bins, rows, columns, drag.axis)
    figure = Figure(figsize=(max(7.2, 3.1 * len(ops) + 0.7), 8.2), dpi=100, layout="constrained")
    grid = figure.add_gridspec(3, len(ops), height_ratios=(3, 3, 2.4))
    above = below = None
    for i, op in enumerate(ops):
        above = figure.add_subplot(grid[0, i], sharey=above)
        below = figure.add_subplot(grid[1, i], sharex=above, sharey=below)
        _draw_outputs(above, drag, op, channel, bins)
        _draw_derivatives(below, drag, op, channel, bins)
        above.set_title(f"{TITLES[op]}\n", fontsize=10, pad=14)
        above.text(0.5, 1.03, _summary(drag.numbers(op)), transform=above.transAxes, fontsize=8, ha="center")
        above.tick_params(labelbottom=False)
        if i:
            above.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
        else:
            above.set_ylabel("output", fontsize=9)
            below.set_ylabel("change of output\nper picture pixel", fontsize=9)
    _draw_changes(figure.add_subplot(grid[2, :]), drag)
    _legend(figure, drag, bins)
    corners = ", ".join(f"{corner:g}" for corner in drag.roi[1:])
    figure.suptitle(
        f"Box [{corners}] moves {'right' if drag.axis == 'x' else 'down'}, "
        f"{drag.offsets[1] - drag.offsets[0]:g} picture pixels at a time; {rows}x{columns} bins",
        fontsize=11,
    )
    return figure


def _chosen(bins, rows, columns, axis):
    """Return the bins to draw."""
    if bins is None:
        middle = [(rows // 2, column) for column in range(columns)]
        if axis == "y":
            middle = [(row, columns // 2) for row in range(rows)]
        some = np.linspace(0, len(middle) - 1, min(len(middle), len(_BIN_COLOURS))).round().astype(int)
        return [middle[i] for i in some]
    bins = [tuple(each) for each in bins]
    if not 1 <= len(bins) <= len(_BIN_COLOURS):
        raise ValueError(f"bins has {len(bins)} entries; expected 1 to {len(_BIN_COLOURS)}")
    for row, column in bins:
        if row not in range(rows) or column not in range(columns):
            raise ValueError(f"bins has ({row}, {column}); expected rows 0 to {rows - 1}, columns 0 to {columns - 1}")
    return bins


def _colour(name):
    return HEX.get(name, name)


def _width(i, bins):
    """Return the width of a bin's line: later ones are thinner, and leave those seen that they lie on."""
    return 1.4 + 2.4 * (len(bins) - 1 - i) / max(len(bins) - 1, 1)


def _mark_jumps(axes, drag, op):
    for jump in drag.jumps[op]:
        axes.axvline(jump.offset, color=_JUMP, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)


def _look(axes):
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_outputs(axes, drag, op, channel, bins):
    """Draw bins over the way, lines broken where they jump."""
    _look(axes)
    _mark_jumps(axes, drag, op)
    for i, (row, column) in enumerate(bins):
        values = drag.outputs[op][:, channel, row, column].astype(np.float64)
        jumps = [jump for jump in drag.jumps[op] if jump.bins[channel, row, column]]
        at, height = list(drag.offsets), list(values)
        for jump in reversed(jumps):
            place = jump.step + 1
            at[place:place] = [jump.offset] * 3
            height[place:place] = [jump.before[channel, row, column], np.nan, jump.after[channel, row, column]]
        colour = _colour(_BIN_COLOURS[i])
        axes.plot(at, height, color=colour, linewidth=_width(i, bins))
        axes.plot(drag.offsets, values, ".", color=colour, markersize=3)


def _summary(numbers):
    """Return two lines on how often the output changed."""
    text = f"{numbers['unchanged']} of {numbers['steps']} steps without change\n{_count(numbers['jumps'], 'jump')}"
    return f"{text}, the largest {numbers['largest_jump']:.3g}" if numbers["jumps"] else text


def _count(number, what):
    return f"{number} {what}" if number == 1 else f"{number or 'no'} {what}s"


def _draw_derivatives(axes, drag, op, channel, bins):
    """Draw differences over each step, in its middle, and crosses where a bin jumps."""
    _look(axes)
    _mark_jumps(axes, drag, op)
    middles = (drag.offsets[1:] + drag.offsets[:-1]) / 2
    for i, (row, column) in enumerate(bins):
        values = drag.derivatives[op][:, channel, row, column]
        axes.plot(middles, values, color=_colour(_BIN_COLOURS[i]), linewidth=_width(i, bins), drawstyle="steps-mid")
        for jump in drag.jumps[op]:
            if jump.bins[channel, row, column]:
                axes.plot(jump.offset, 0, "x", color=_colour(_BIN_COLOURS[i]), markersize=8, markeredgewidth=1.8)
    axes.set_xlabel("moved by, picture pixels", fontsize=9)
    if drag.spatial_scale != 1:
        axes.set_xlabel(f"moved by, picture pixels\n(a cell is {1 / drag.spatial_scale:g} of them)", fontsize=9)
    axes.margins(y=0.12)


def _draw_changes(axes, drag):
    """Draw how far the whole output has gone from where it started."""
    _look(axes)
    for op, changes in drag.changes.items():
        name, line = _OP_LOOKS[op]
        at, distance = list(drag.offsets), list(changes)
        for jump in reversed(drag.jumps[op]):
            place = jump.step + 1
            at[place:place] = [jump.offset] * 2
            distance[place:place] = changes[jump.step : jump.step + 2]
        axes.plot(at, distance, line, color=_colour(name), linewidth=1.6, label=TITLES[op])
    axes.set_xlabel("moved by, picture pixels", fontsize=9)
    axes.set_ylabel("distance of the output\nfrom its start", fontsize=9)
    axes.set_title("All bins and channels together (Euclidean norm)", fontsize=9, loc="left")
    axes.legend(fontsize=8, frameon=False)
    if drag.spatial_scale != 1:
        scale = drag.spatial_scale
        cells = axes.secondary_xaxis("top", functions=(lambda at: at * scale, lambda at: at / scale))
        cells.set_xlabel("feature cells", fontsize=8)
        cells.tick_params(labelsize=8)


def _legend(figure, drag, bins):
    """Say below which colour is which bin, and what marks a jump."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_colour(_BIN_COLOURS[i]), linewidth=2.4, label=f"bin ({row}, {column})")
        for i, (row, column) in enumerate(bins)
    ]
    if any(drag.jumps.values()):
        handles += [
            Line2D([], [], color=_JUMP, linewidth=0.8, linestyle=(0, (1, 2)), label="a jump"),
            Line2D([], [], color="#444444", marker="x", linestyle="", markersize=7, label="jumps: no derivative"),
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), fontsize=8, frameon=False)
