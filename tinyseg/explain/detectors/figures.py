"""Figures of a detector's run: one for every stage, and a sheet of all of them."""

import io
import textwrap

import numpy as np

from tinyseg.explain.detectors import boxes_figure as of_boxes
from tinyseg.explain.detectors import maps_figure as of_maps
from tinyseg.explain.detectors.panel import COVERS, HEIGHT, IN_TURN, OTHER, PLACE, REMOVED, TRUTH, WIDTH, Panel
from tinyseg.explain.detectors.stages import RECALL_AT

_DRAW = {
    "picture": of_maps.draw_picture, "backbone": of_maps.draw_maps, "pyramid": of_maps.draw_maps,
    "anchors": of_boxes.draw_anchors, "objectness": of_maps.draw_objectness, "top": of_boxes.draw_boxes,
    "refined": of_boxes.draw_moves, "clipped": of_boxes.draw_clipped, "levels": of_boxes.draw_levels,
    "pooled": of_maps.draw_pooled, "classes": of_maps.draw_classes, "class_boxes": of_boxes.draw_moves,
    "mask_logits": of_maps.draw_mask_logits, "masks": of_maps.draw_masks, "found": of_maps.draw_found,
}  # fmt: skip
_ON_SHEET = 6  # places in a row of a sheet


def draw_stage(xray, stage):
    """Draw one stage.

    Parameters
    ----------
    xray : DetectorXRay
        The run.
    stage : DetectorStage
        One of its stages.

    Returns
    -------
    matplotlib.figure.Figure
    """
    return _drawn(xray, stage).figure


def _drawn(xray, stage):
    """Return the panel that a stage was drawn on."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=100, facecolor="white")
    panel = Panel(figure, f"{stage.title} · {stage.count} {stage.unit}", sentences(stage), small=False)
    _DRAW.get(stage.name, of_boxes.draw_choice)(panel, xray, stage)
    return panel


def stage_png(xray, stage):
    """Return a stage's figure as the bytes of a PNG file, and again without the words above it."""
    from PIL import Image

    panel = _drawn(xray, stage)
    whole, cut = png(panel.figure), io.BytesIO()
    with Image.open(io.BytesIO(whole)) as image:
        top = round(panel.top * panel.figure.dpi) - 4
        image.crop((0, top, image.width, image.height)).save(cut, "png")
    return whole, cut.getvalue()


def sentences(stage):
    """Return what a stage does, and how many of the true objects it still covers."""
    covered = ", ".join(f"{value:.0%} at IoU {at:g}" for at, value in stage.recall.items())
    return stage.text + (f" True objects that some box covers: {covered}." if covered else "")


def draw_sheet(xray):
    """Draw all stages that change something, small, and how many boxes and objects are left after each.

    Parameters
    ----------
    xray : DetectorXRay
        The run.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    shown = [stage for stage in xray.stages if not _same(xray, stage)]
    rows = -(-(len(shown) + 2) // _ON_SHEET)  # the chart takes two places
    figure = Figure(figsize=(PLACE[0] * _ON_SHEET, PLACE[1] * rows + 0.4), dpi=100, facecolor="white")
    heights = (*(PLACE[1],) * rows, 0.4)  # the last for the legend
    grid = figure.add_gridspec(rows + 1, _ON_SHEET, wspace=0, hspace=0, height_ratios=heights)
    for place, stage in enumerate(shown):
        part = figure.add_subfigure(grid[divmod(place, _ON_SHEET)])
        panel = Panel(part, f"{place + 1} {stage.name}: {stage.count} {stage.unit}", "", small=True)
        _DRAW.get(stage.name, of_boxes.draw_choice)(panel, xray, stage)
    row, column = divmod(len(shown), _ON_SHEET)
    row, column = (row, column) if column <= _ON_SHEET - 2 else (row + 1, 0)
    _chart(figure.add_subfigure(grid[row, column : column + 2]), xray)
    if xray.truth is not None and column + 2 < _ON_SHEET:
        _objects(figure.add_subfigure(grid[row, column + 2 :]), xray, _ON_SHEET - column - 2)
    _legend(figure, xray)
    return figure


def _same(xray, stage):
    """Return whether a stage lets all boxes pass, so that a sheet has no need of it."""
    return stage.name not in _DRAW and stage.count == xray.before(stage).count


def _chart(figure, xray):
    """Draw how many boxes each stage leaves, and of how many of the objects."""
    stages = [stage for stage in xray.stages if stage.boxes is not None and not _same(xray, stage)]
    width, height = 2 * PLACE[0], PLACE[1]
    figure.text(0.04 / 2, 1 - 0.07 / height, "boxes after every stage", fontsize=8.6, weight="bold", va="top")
    with_recall = any(stage.recall for stage in stages)
    axes = figure.add_axes((0.95 / width, 0.32 / height, (2.4 if with_recall else 4.2) / width, 1 - 0.66 / height))
    places, names = np.arange(len(stages)), [stage.name for stage in stages]
    axes.barh(places, [max(stage.count - 0.5, 0) for stage in stages], color=IN_TURN[0], height=0.62, left=0.5)
    for place, stage in zip(places, stages, strict=True):
        axes.text(
            0.62, place, str(stage.count), va="center", fontsize=6.5, color="white" if stage.count > 9 else "black"
        )
    axes.set(xscale="log", ylim=(len(stages) - 0.5, -0.5), yticks=places, xlim=(0.5, None))
    axes.set_xlabel("boxes", fontsize=6.5, labelpad=0)
    _plain(axes, names)
    if not with_recall:
        return
    axes = figure.add_axes((3.55 / width, 0.32 / height, 1.75 / width, 1 - 0.66 / height))
    for at, look in zip(
        RECALL_AT, ({"color": COVERS, "marker": "o"}, {"color": IN_TURN[1], "marker": "s"}), strict=True
    ):
        recall = [stage.recall.get(at, 0) for stage in stages]
        axes.plot(recall, places, markersize=3.5, linewidth=1.2, label=f"IoU {at:g}", **look)
    axes.set(ylim=(len(stages) - 0.5, -0.5), xlim=(-0.04, 1.04), yticks=places)
    axes.set_xlabel("recall: share of objects covered", fontsize=6.5, labelpad=0)
    _plain(axes, [])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 0.97), ncols=2, borderpad=0)


def _objects(figure, xray, places):
    """Write what became of the true objects, of as many as there is room for."""
    lines = [textwrap.wrap(f"{xray.class_name(int(label))} {lost.number}: {lost.text}", 44 * places - 2)
             for lost, label in zip(xray.objects(), xray.truth["labels"], strict=True)]  # fmt: skip
    most = 13
    shown: list[str] = []
    for number, words in enumerate(lines):
        if len(shown) + len(words) > most:
            shown.append(f"... and {len(lines) - number} more")
            break
        shown += words
    left, height = 0.04 / places, PLACE[1]
    figure.text(left, 1 - 0.07 / height, "what became of the true objects", fontsize=8.6, weight="bold", va="top")
    figure.text(left, 1 - 0.33 / height, "\n".join(shown), fontsize=8, va="top", linespacing=1.35)


def _plain(axes, names):
    axes.set_yticklabels(names or [""] * len(axes.get_yticks()), fontsize=6.5)
    axes.tick_params(labelsize=6.5, length=2, pad=2)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure, xray):
    """Write below a sheet what its colours mean."""
    from matplotlib.lines import Line2D

    entries: list[tuple[str, dict]] = [("box: the darker, the higher its score", {"color": "#443983"})]
    if xray.truth is not None:
        entries = [("true object", {"color": TRUTH, "linestyle": (0, (3, 1.8))}),
                   ("box that covers an object by IoU 0.5 or more", {"color": COVERS}),
                   ("box that covers none", {"color": OTHER})]  # fmt: skip
    entries.append(("left out at this stage, or before it moved", {"color": REMOVED, "linestyle": (0, (1, 1.2))}))
    entries.append(("after it moved", {"color": IN_TURN[0]}))
    lines = [Line2D([], [], linewidth=1.8, **look) for _, look in entries]
    words = [each for each, _ in entries]
    figure.legend(
        lines, words, loc="lower left", ncols=len(lines), frameon=False, fontsize=9, bbox_to_anchor=(0.005, 0)
    )


def png(figure):
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
