"""Pictures of the stages of a detector that are maps, pooled features, scores and masks."""

import numpy as np

from tinyseg import draw, ops
from tinyseg.data import Sample
from tinyseg.explain.detectors.panel import IN_TURN, outline, outline_truth, show
from tinyseg.explain.detectors.stages import overlaps

_SHOWN, _ROWS, _COLUMNS = 15, 16, 10
_LIVELY = 0.5  # score from which on masks are drawn, where there are such


def draw_picture(panel, xray, stage):
    """Draw the picture as the network sees it, with what was added at its borders."""
    (axes,) = panel.grid().ravel()
    x = stage.arrays["picture"]
    height, width = xray.resized().shape[:2]
    image = np.full((*x.shape[1:], 3), 225, np.uint8)
    image[:height, :width] = xray.resized()
    show(panel, axes, image)
    legend = outline_truth(axes, xray.truth)
    if image.shape[:2] != (height, width):
        outline(axes, [[0, 0, width, height]], color=IN_TURN[0])
        legend.append(("the picture; grey: added zeros", {"color": IN_TURN[0]}))
    panel.legend(legend)


def draw_maps(panel, xray, stage):
    """Draw of each map the mean size of its features, and the channel that varies most."""
    maps = dict(list(stage.arrays.items())[:6])
    if panel.small:
        axes = panel.grid(-(-len(maps) // 2), min(len(maps), 2), captions=1).ravel()
        for unused in axes[len(maps) :]:
            unused.axis("off")
        for place, (name, x) in zip(axes, maps.items(), strict=False):
            show(panel, place, np.abs(x).mean(axis=0), cmap="cividis")
            _caption(place, f"{name}: {_size(x.shape)}", 6.5)
        return
    rows = panel.grid(2, len(maps), captions=2)
    for column, (name, x) in enumerate(maps.items()):
        means, lively = np.abs(x).mean(axis=0), int(x.reshape(len(x), -1).std(axis=1).argmax())
        titles = f"map {name}: {_size(x.shape)}\nmean of |x|: ", f"channel {lively}\n"
        for axes, values, title in zip(rows[:, column], (means, x[lively]), titles, strict=True):
            show(panel, axes, values, unit="cells", cmap="cividis")
            _caption(axes, f"{title}{_short(values.min())} to {_short(values.max())}")
            axes.set_ylabel(axes.get_ylabel() if column == 0 else "")
    words = "above: over all channels; below: the channel that varies most; from its least value (dark) to its largest"
    panel.legend([(words, {"color": "none"})])


def draw_objectness(panel, xray, stage):
    """Draw the score of the likeliest anchor of every cell."""
    maps = list(stage.arrays.items())
    columns = min(len(maps), 2 if panel.small else 3)
    grid = panel.grid(-(-len(maps) // columns), columns, captions=1, bars=True)
    height, width = xray["picture"].arrays["picture"].shape[1:]
    legend = []
    for axes in grid.ravel()[len(maps) :]:
        axes.axis("off")
    for axes, (name, logits) in zip(grid.ravel(), maps, strict=False):
        scores = ops.sigmoid(logits.max(axis=0)).array
        rows, cells = scores.shape
        drawn = show(panel, axes, scores, unit="cells", cmap="cividis", vmin=0, vmax=1)
        legend = outline_truth(axes, xray.truth, factor=(cells / width, rows / height))
        axes.set(xlim=(0, cells), ylim=(rows, 0))
        best = f"{scores.max():.2f}"
        words = f"{name}: at most {best}" if panel.small else f"map {name}: {rows}x{cells} cells, at most {best}"
        _caption(axes, words, 6.5 if panel.small else 8.5)
        if not panel.small:
            axes.set_ylabel(axes.get_ylabel() if axes in grid[:, 0] else "")
            _bar(panel, drawn, axes)
    panel.legend([*legend, ("colour: score of the likeliest anchor of a cell", {"color": "none"})])


def draw_pooled(panel, xray, stage):
    """Draw some proposals: what they show, and the features pooled from them."""
    pooled = stage.arrays["pooled"]
    rows = _proposals(xray, 3 if panel.small else 12)
    if not len(rows):
        return panel.nothing("no proposals")
    levels = xray.pooled_from()
    columns = min(len(rows), 3 if panel.small else 6)
    grid = panel.grid(2 * -(-len(rows) // columns), columns, captions=1, numbers=False)
    image, boxes = xray.resized(), xray["proposals"].boxes
    means = np.abs(pooled[rows]).mean(axis=1)
    for axes in grid.ravel():
        axes.axis("off")
    for number, row in enumerate(rows):
        above, below = grid[2 * (number // columns) :, number % columns][:2]
        above.axis("on")
        below.axis("on")
        _crop(panel, above, image, boxes[row])
        source = "" if levels is None else f", map {levels[row]}"
        _caption(above, f"{row}{source}" if panel.small else f"proposal {row}{source}", 6.5 if panel.small else 8.5)
        show(panel, below, means[number], unit="", cmap="cividis", vmin=0, vmax=means.max())
    panel.legend([("proposal", {"color": IN_TURN[1]}),
                  (f"below each: its {_size(means.shape[1:])} bins, mean of |x| over {pooled.shape[1]} channels, "
                   f"from 0 (dark) to {means.max():.3g} (bright)", {"color": "none"})])  # fmt: skip
    return None


def _proposals(xray, most):
    """Return numbers of proposals to look at: the nearest to each object, then those surest of any class."""
    probabilities = xray["classes"].arrays["probabilities"]
    chosen = []
    if xray.truth is not None and len(probabilities):
        chosen = overlaps(xray["proposals"], xray.truth).argmax(axis=1).tolist()
    chosen += np.argsort(probabilities[:, 0], kind="stable").tolist()
    return list(dict.fromkeys(chosen))[:most]


def _crop(panel, axes, image, box):
    """Show the part of a picture around a box."""
    show(panel, axes, image, unit="")
    outline(axes, [box], color=IN_TURN[1], linewidths=1.6)
    x1, y1, x2, y2 = box
    half, x, y = max(x2 - x1, y2 - y1, 4) * 0.62, (x1 + x2) / 2, (y1 + y2) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half), facecolor="#e1e1e1")


def draw_classes(panel, xray, stage):
    """Draw the probabilities of the classes for some proposals."""
    probabilities = stage.arrays["probabilities"]
    rows = _proposals(xray, 10 if panel.small else _ROWS)
    if not rows:
        return panel.nothing("no proposals")
    labels = np.arange(probabilities.shape[1])
    if len(labels) > _COLUMNS:  # the background, and those that some proposal is likeliest for
        labels = np.sort(np.r_[0, 1 + np.argsort(-probabilities[rows, 1:].max(axis=0), kind="stable")[: _COLUMNS - 1]])
    (axes,) = panel.grid(left=1.15, captions=int(panel.small), bars=True).ravel()
    values = probabilities[np.ix_(rows, labels)]
    drawn = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    names = [xray.class_name(label) for label in labels.tolist()]
    if panel.small:
        axes.set(xticks=range(len(names)), yticks=[])
        axes.set_xticklabels([name[:10] for name in names] if len(names) <= 4 else [], fontsize=6)
        axes.tick_params(length=0, pad=1)
        axes.xaxis.tick_top()
        return None
    axes.set(xticks=range(len(names)), yticks=range(len(rows)))
    axes.set_xticklabels([name if len(name) < 13 else name[:12] + "…" for name in names], fontsize=8.5)
    axes.set_yticklabels([f"proposal {row}" for row in rows], fontsize=8.5)
    for i, j in np.ndindex(*values.shape):
        axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=8,
                  color="white" if values[i, j] < 0.55 else "black")  # fmt: skip
    _bar(panel, drawn, axes)
    first = "the nearest proposal of each object, then those" if xray.truth is not None else "the proposals"
    panel.legend([(f"rows: {first} least like background; colour: probability", {"color": "none"})])
    return None


def draw_mask_logits(panel, xray, stage):
    """Draw the mask of the best detections, as the network gives it: positive inside."""
    found, logits = xray["found"], stage.arrays["mask_logits"]
    count = min(len(logits), 4 if panel.small else 8)
    if not count:
        return panel.nothing("nothing found: no masks")
    columns = min(count, 2 if panel.small else 4)
    grid = panel.grid(-(-count // columns), columns, captions=1, numbers=False, right=0.7).ravel()
    own = logits[np.arange(len(logits)), found.labels][:count]
    limit = max(float(np.abs(own).max()), 1e-6)
    for axes in grid[count:]:
        axes.axis("off")
    for number in range(count):
        drawn = show(panel, grid[number], own[number], unit="", cmap="PuOr_r", vmin=-limit, vmax=limit)
        if own[number].min() < 0 < own[number].max():
            rows, columns_of = own[number].shape
            grid[number].contour(np.arange(columns_of) + 0.5, np.arange(rows) + 0.5, own[number], levels=[0],
                                 colors="black", linewidths=1)  # fmt: skip
        words = f"{xray.class_name(int(found.labels[number]))} {found.scores[number]:.2f}"
        _caption(grid[number], words, 6.5 if panel.small else 8.5)
    if not panel.small:
        _bar(panel, drawn, grid[columns - 1])
    panel.legend([("logit 0: an even chance", {"color": "black", "linewidth": 1}),
                  ("colour: logit; orange, positive: inside the object", {"color": "none"})])  # fmt: skip
    return None


def draw_masks(panel, xray, stage):
    """Draw the masks over the picture."""
    _draw_found(panel, xray, stage.arrays["masks"])


def draw_found(panel, xray, stage):
    """Draw what was found, boxes with class and score."""
    _draw_found(panel, xray, None)


def _draw_found(panel, xray, masks):
    found = xray["found"]
    sure = int((found.scores >= _LIVELY).sum())
    count = min(sure or found.count, _SHOWN)
    picture, stretch = draw.drawable(xray.picture)
    height, width = picture.shape[1:]
    words = {} if masks is None else {"show_boxes": False, "show_labels": False}
    scale = max(1, round(700 / max(height, width)))
    inch = scale * max(height, width) / (2.5 if panel.small else 4.2)  # in pixels of the drawing
    look = {"scale": scale, "stretch": stretch, "font_size": round(0.12 * inch), "line_width": max(1, round(inch / 60))}
    look |= words
    objects = {"boxes": found.boxes[:count], "labels": found.labels[:count], "scores": found.scores[:count]}
    objects |= {} if masks is None else {"masks": masks[:count]}
    if xray.truth is None or panel.small:
        images = {"": draw.detections(picture, **objects, class_names=xray.class_names, **look)}
    else:
        truth = {"boxes": xray.truth["boxes"], "classes": xray.truth["labels"], "class_names": xray.class_names}
        look |= (
            {"show_boxes": None, "show_labels": None} if masks is None else {"show_boxes": True, "show_labels": True}
        )
        both = draw.truth_and_prediction(Sample(picture, **truth), objects, **look)
        images = dict(zip(("truth", "found"), both, strict=True))
    kind = "with a score of 0.5 or more" if sure else "the surest"
    for axes, (title, image) in zip(panel.grid(1, len(images), captions=1).ravel(), images.items(), strict=True):
        show(panel, axes, image, (0, width, height, 0))
        _caption(axes, title, 10)
    panel.legend([(f"{count} of {found.count} drawn, {kind}; an object that was found has one colour in both"
                   if len(images) > 1 else f"{count} of {found.count} drawn, {kind}", {"color": "none"})])  # fmt: skip


def _caption(axes, words, size=8.5):
    axes.set_title(words, fontsize=size, pad=2.5)


def _bar(panel, drawn, axes):
    """Put a bar of colours with its numbers beside axes."""
    inch = 1 / (axes.get_position().width * panel.width)
    place = axes.inset_axes((1 + 0.06 * inch, 0, 0.09 * inch, 1))
    bar = panel.figure.colorbar(drawn, cax=place)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_linewidth(0.4)


def _short(value):
    """Return a number with two digits or more, never with a power of ten for what a feature may be."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def _size(shape):
    return "x".join(map(str, shape))
