"""Pictures of the stages of a detector that choose and move boxes."""

import numpy as np

from tinyseg.explain.detectors.panel import (
    COVERS,
    IN_TURN,
    MOST_BOXES,
    OTHER,
    REMOVED,
    outline,
    outline_truth,
    pale,
    show,
)  # fmt: skip
from tinyseg.explain.detectors.stages import overlaps

_DASHED, _MOVES = (0, (3, 2)), 12


def draw_anchors(panel, xray, stage):
    """Draw the anchors of the middle cell of every map, and for each object the anchor that overlaps it most."""
    (axes,) = panel.grid().ravel()
    image = xray.resized()
    show(panel, axes, pale(image))
    height, width = image.shape[:2]
    legend: list[tuple[str, dict]] = []
    for level, (name, logits) in enumerate(xray["objectness"].arrays.items()):
        boxes = stage.boxes[stage.levels == level]
        each, rows, columns = logits.shape
        middle = (rows // 2 * columns + columns // 2) * each
        colour = IN_TURN[level % len(IN_TURN)]
        outline(axes, boxes[middle : middle + each], color=colour, linewidths=1 if panel.small else 1.8)
        legend.append((f"map {name}: {rows}x{columns} cells, {each} each", {"color": colour}))
    if xray.truth is not None and stage.count:
        best = overlaps(stage, xray.truth).argmax(axis=1)
        outline(axes, stage.boxes[best], color=COVERS, linestyles=_DASHED, linewidths=1.4)
        legend.append(("nearest anchor of an object", {"color": COVERS, "linestyle": _DASHED}))
    legend += outline_truth(axes, xray.truth)
    margin = 0.15
    axes.set(xlim=(-margin * width, (1 + margin) * width), ylim=((1 + margin) * height, -margin * height))
    panel.legend(legend)


def draw_boxes(panel, xray, stage):
    """Draw the best boxes of a stage; in colour those that cover an object, or without truth by score."""
    (axes,) = panel.grid().ravel()
    show(panel, axes, pale(xray.resized()))
    panel.legend(_boxes(panel, axes, xray, stage) + outline_truth(axes, xray.truth))
    _within(axes, xray)


def _boxes(panel, axes, xray, stage):
    """Draw the boxes of a stage; return what the colours mean."""
    order = np.arange(stage.count) if stage.scores is None else np.argsort(-stage.scores, kind="stable")
    some, width = order[:MOST_BOXES], 0.8 if panel.small else 1.2
    named = "" if len(some) == stage.count else f" (the {len(some)} best of {stage.count} drawn)"
    if xray.truth is None:
        shades = np.array([_shade(score) for score in stage.scores[some]]).reshape(-1, 4)
        outline(axes, stage.boxes[some], color=shades, linewidths=width)
        marks = [(f"score {score:g}", {"color": _shade(score)}) for score in (0.1, 0.5, 0.9)]
        return [(f"boxes{named}, by score:", {"color": "none"}), *marks]
    covers = (overlaps(stage, xray.truth) >= 0.5).any(axis=0)
    others, covering = some[~covers[some]], order[covers[order]][:MOST_BOXES]
    outline(axes, stage.boxes[others], color=OTHER, linewidths=0.6 * width, alpha=0.55)
    outline(axes, stage.boxes[covering], color=COVERS, linewidths=width)
    what = "covers an object (IoU 0.5)" if stage.labels is None else "covers an object of its class"
    return [(f"{what}: {covers.sum()}", {"color": COVERS}),
            (f"covers none: {(~covers).sum()}{named}", {"color": OTHER, "linewidth": 1})]  # fmt: skip


def _shade(score):
    from matplotlib import colormaps

    return colormaps["viridis_r"](0.1 + 0.9 * float(score))


def _within(axes, xray):
    height, width = xray.resized().shape[:2]
    axes.set(xlim=(0, width), ylim=(height, 0))


def draw_choice(panel, xray, stage):
    """Draw the boxes that a stage lets pass, and in vermilion those that it leaves out."""
    (axes,) = panel.grid().ravel()
    show(panel, axes, pale(xray.resized()))
    before = xray.before(stage)
    out = np.setdiff1d(np.arange(before.count), stage.source)
    best = out[np.argsort(-before.scores[out], kind="stable")][:MOST_BOXES]
    outline(axes, before.boxes[best], color=REMOVED, linestyles=(0, (1, 1.6)), linewidths=0.6 if panel.small else 0.9)
    legend = _boxes(panel, axes, xray, stage) + outline_truth(axes, xray.truth)
    named = "" if len(best) == len(out) else f" (the {len(best)} best drawn)"
    panel.legend([*legend, (f"left out here: {len(out)}{named}", {"color": REMOVED, "linestyle": (0, (1, 1.2))})])
    _within(axes, xray)


def draw_moves(panel, xray, stage):
    """Draw some of the best boxes before and after they were moved, and the way between."""
    (axes,) = panel.grid().ravel()
    image = xray.resized()
    show(panel, axes, pale(image))
    before = xray.before(stage)
    if stage.name == "class_boxes":  # of each proposal the box of its likeliest class, the surest first
        classes = xray.model.num_classes - 1
        rows = stage.scores.reshape(-1, classes).argmax(axis=1) + np.arange(before.count) * classes
        rows = rows[np.argsort(-stage.scores[rows], kind="stable")]
    else:
        rows = np.argsort(-stage.scores, kind="stable")
    rows = rows[: _MOVES // 2 if panel.small else _MOVES]
    old, new = before.boxes[stage.source[rows]], stage.boxes[rows]
    outline(axes, old, color=REMOVED, linestyles=_DASHED, linewidths=0.8 if panel.small else 1.1)
    outline(axes, new, color=IN_TURN[0], linewidths=0.9 if panel.small else 1.5)
    for a, b in zip(_centres(old), _centres(new), strict=True):
        axes.annotate("", b, a, arrowprops={"arrowstyle": "->", "color": IN_TURN[0], "shrinkA": 0, "shrinkB": 0})
    legend = outline_truth(axes, xray.truth)
    _around(axes, image, old, new)
    what = "proposal" if stage.name == "class_boxes" else "anchor"
    after = "the box of its likeliest class" if stage.name == "class_boxes" else "where it was moved"
    panel.legend([(f"{what}: the {len(rows)} surest of {before.count}", {"color": REMOVED, "linestyle": _DASHED}),
                  (after, {"color": IN_TURN[0]}), *legend])  # fmt: skip


def _centres(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _around(axes, image, *boxes):
    """Show as much beyond the picture as the boxes need, up to half of its size."""
    height, width = image.shape[:2]
    corners = np.concatenate([*boxes, [[0, 0, width, height]]])
    low = np.maximum(corners[:, :2].min(axis=0) - 2, (-width / 2, -height / 2))
    high = np.minimum(corners[:, 2:].max(axis=0) + 2, (1.5 * width, 1.5 * height))
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))


def draw_clipped(panel, xray, stage):
    """Draw boxes that reached beyond the picture, before and after."""
    (axes,) = panel.grid().ravel()
    image, before = xray.resized(), xray.before(stage)
    show(panel, axes, pale(image))
    changed = np.flatnonzero((before.boxes != stage.boxes).any(axis=1))
    some = changed[np.argsort(-stage.scores[changed], kind="stable")][: 2 * _MOVES]
    old, new = before.boxes[some], stage.boxes[some]
    outline(axes, old, color=REMOVED, linestyles=_DASHED, linewidths=0.8)
    outline(axes, new, color=IN_TURN[0], linewidths=0.9 if panel.small else 1.4)
    legend = outline_truth(axes, xray.truth)
    _around(axes, image, old)
    panel.legend([(f"beyond the border: {len(changed)} of {stage.count}, the {len(some)} surest drawn",
                   {"color": REMOVED, "linestyle": _DASHED}), ("cut off", {"color": IN_TURN[0]}), *legend])  # fmt: skip


def draw_levels(panel, xray, stage):
    """Draw the proposals in the colour of the map that they are pooled from, and their sizes."""
    levels, names = stage.arrays["levels"], stage.arrays["names"]
    axes = (panel.grid() if panel.small else panel.grid(1, 2, width_ratios=(1.35, 1))).ravel()
    show(panel, axes[0], pale(xray.resized()))
    proposals, legend = xray["proposals"], []
    for level in range(len(names)):
        rows = np.flatnonzero(levels == level)[:MOST_BOXES]
        colour = IN_TURN[level % len(IN_TURN)]
        outline(axes[0], proposals.boxes[rows], color=colour, linewidths=0.8 if panel.small else 1.2)
        stride = 1 / stage.arrays["scales"][level]
        legend.append(
            (f"map {names[level]} (cells of {stride:g} pixels): {(levels == level).sum()}", {"color": colour})
        )
    legend += outline_truth(axes[0], xray.truth)
    _within(axes[0], xray)
    if not panel.small:
        _sizes(axes[1], proposals.boxes, levels, names)
        panel.legend(legend)


def _sizes(axes, boxes, levels, names):
    """Draw each proposal's size beside its map."""
    from matplotlib.ticker import NullLocator

    side = np.sqrt(np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1e-3))
    spread = (np.arange(len(side)) * 0.618034) % 1 * 0.6 - 0.3  # apart from each other, the same every time
    axes.scatter(side, levels + spread, c=[IN_TURN[level % len(IN_TURN)] for level in levels], s=14, alpha=0.75,
                 linewidths=0)  # fmt: skip
    powers = 2 ** np.arange(np.floor(np.log2(side.min(initial=16))), np.ceil(np.log2(side.max(initial=32))) + 1)
    axes.set(xscale="log", yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5), xlim=(powers[0], powers[-1]))
    axes.set_xticks(powers, [f"{power:g}" for power in powers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticklabels([f"map {name}" for name in names], fontsize=8.5)
    axes.set_xlabel("size of a proposal: root of its area (pixels)", fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
