"""Detections over a picture: masks, outlines, boxes and labels, one object at a time."""

import numpy as np

from tinyseg.colours import CLASS_COLOURS
from tinyseg.draw.labels import label_texts, paint_labels
from tinyseg.draw.object_colours import object_colours
from tinyseg.draw.pictures import check_opacity, overlay, strips, to_rgb

#: With more masks than this, boxes would hide more than they show.
_MOST_BOXES_WITH_MASKS = 40


def detections(
    picture,
    boxes,
    labels=None,
    scores=None,
    masks=None,
    class_names=(),
    *,
    colours=None,
    opacity=0.4,
    line_width=None,
    font_size=None,
    show_boxes=None,
    show_labels=None,
    scale=1,
    stretch=False,
):
    """Draw found objects over a picture: masks, boxes, and labels such as "cat 0.93".

    A detector's answer fits as it is: ``detections(picture, **model([picture])[0])``. The best object is painted last
    and lies on top. Each object takes a colour that those near it do not have.

    Parameters
    ----------
    picture : ndarray
        As for `to_rgb`.
    boxes : ndarray or Tensor
        (K, 4): x1, y1, x2, y2 in picture pixels; a pixel of column ``x`` covers ``x`` to ``x + 1``. Parts outside the
        picture are cut off.
    labels : ndarray or Tensor, optional
        (K,) integers: classes.
    scores : ndarray or Tensor, optional
        (K,): how sure the detector is; without them, the first object lies on top.
    masks : ndarray, Tensor or sequence, optional
        (K, H, W) or (K, 1, H, W): bool, or numbers, of which those from 0.5 on belong to the object. Or a sequence that
        gives for each object (H, W), or (first row, first column, part of a mask) as `mask_window` does: it is asked
        once for each object, so that masks can be made one at a time.
    class_names : sequence of str
        Names of class 0, 1, ...
    colours : sequence of (red, green, blue), optional
        From 0 to 255, one for each object.
    opacity : float
        Of the masks, from 0 to 1.
    line_width, font_size : int, optional
        Pixels; by the size of the picture and of the objects.
    show_boxes : bool, optional
        By default unless there are masks for more than 40 objects.
    show_labels : bool, optional
        By default unless labels would cover more than a fifth of the picture. A label that would leave the picture, or
        lie over that of a better object, is left out in any case.
    scale : int
        How many times larger than the picture the drawing is: room for labels on small pictures.
    stretch : bool
        As for `to_rgb`.

    Returns
    -------
    ndarray
        (scale * H, scale * W, 3) uint8.

    Raises
    ------
    ValueError
        If shapes do not fit together, a coordinate is not finite, or an option is out of range.
    """
    check_opacity(opacity)
    rgb = _enlarged(to_rgb(picture, stretch), scale)
    shape = rgb.shape[0] // scale, rgb.shape[1] // scale
    boxes, labels, scores, masks = _checked(boxes, labels, scores, masks)
    spans = _spans(boxes * scale, rgb.shape)
    order = np.arange(len(boxes))[::-1] if scores is None else np.argsort(scores[::-1], kind="stable")
    order = order if scores is None else len(boxes) - 1 - order  # of equal scores, the first lies on top
    paints = _paints(colours, boxes, shape)
    width = _line_width(spans, rgb.shape) if line_width is None else line_width
    if masks is not None:
        for i in order:
            row, column, part = mask_window(masks[i], shape)
            part = part.repeat(scale, 0).repeat(scale, 1) if scale > 1 else part
            _paint_mask(rgb, row * scale, column * scale, part, paints[i], opacity, max(1, width // 2))
    if show_boxes or (show_boxes is None and (masks is None or len(boxes) <= _MOST_BOXES_WITH_MASKS)):
        for i in order:
            _paint_box(rgb, spans[i], paints[i], width)
    texts = label_texts(labels, scores, class_names) if show_labels is not False else []
    if texts:
        size = max(10, round(min(rgb.shape[:2]) / 40)) if font_size is None else font_size
        texts = [texts[i] for i in order]
        paint_labels(rgb, texts, spans[order], paints[order].astype(np.uint8), size, always=show_labels is True)
    return rgb


def instances(picture, labels, *, opacity=0.4, outline=True, stretch=False):
    """Draw numbered objects over a picture, neighbours in different colours.

    Parameters
    ----------
    picture : ndarray
        As for `to_rgb`.
    labels : ndarray
        (H, W) integers: the object that each pixel shows, 0 none.
    opacity : float
        Of the colours, from 0 to 1.
    outline : bool
        Draw borders in the full colour.
    stretch : bool
        As for `to_rgb`.

    Returns
    -------
    ndarray
        (H, W, 3) uint8.

    Raises
    ------
    ValueError
        If the label picture is of another size or type, or ``opacity`` out of range.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise ValueError(f"labels has shape {labels.shape} and dtype {labels.dtype}; expected integers (H, W)")
    numbers, boxes = _boxes_of_numbers(labels)
    order = object_colours(boxes, CLASS_COLOURS, _near(labels.shape))
    # objects by their colours: 1 to the number of colours
    kinds = np.zeros(labels.shape, np.uint8)
    for rows in strips(labels.shape):
        part = labels[rows]
        inside = part != 0
        kinds[rows][inside] = 1 + order[np.searchsorted(numbers, part[inside])]
    drawn = overlay(picture, kinds, opacity, outline=False, stretch=stretch)
    if outline:
        paints = np.asarray(CLASS_COLOURS, np.uint8)
        for rows in strips(labels.shape):
            top, bottom = max(rows.start - 1, 0), min(rows.stop + 1, labels.shape[0])
            edge = _edges(labels[top:bottom])[rows.start - top : rows.stop - top]
            drawn[rows][edge] = paints[kinds[rows][edge] - 1]
    return drawn


def truth_and_prediction(sample, prediction, class_names=None, **options):
    """Draw the truth of a picture, and what was found; an object that was found has one colour in both.

    Parameters
    ----------
    sample : tinyseg.data.Sample
        Picture, boxes, classes and, where there are some, masks.
    prediction : dict
        ``boxes`` and, as there are, ``labels``, ``scores`` and ``masks``, as for `detections`.
    class_names : sequence of str, optional
        Names of the classes; those of the sample by default.
    **options
        As for `detections`.

    Returns
    -------
    truth, prediction : ndarray
        (H, W, 3) uint8: two drawings, which `panels` puts side by side.

    Raises
    ------
    ValueError
        If the sample has no boxes, or as for `detections`.
    """
    if sample.boxes is None:
        raise ValueError(f"sample {sample.name!r} has no boxes; expected a picture with its objects")
    names = sample.class_names if class_names is None else class_names
    palette = np.asarray(CLASS_COLOURS)
    found = np.asarray(_array(prediction["boxes"]), np.float64).reshape(-1, 4)
    true = np.asarray(sample.boxes, np.float64).reshape(-1, 4)
    both = np.concatenate([true, found])
    chosen = object_colours(both, CLASS_COLOURS, _near(np.shape(sample.picture)[-2:]))
    of_truth, of_found = chosen[: len(true)], chosen[len(true) :].copy()
    for i, j in _matches(true, found, _array(prediction.get("scores"))):
        of_found[j] = of_truth[i]
    masks = sample.instance_masks
    left = detections(sample.picture, true, sample.classes, None, masks, names, colours=palette[of_truth], **options)
    right = detections(sample.picture, **prediction, class_names=names, colours=palette[of_found], **options)
    return left, right


def mask_window(mask, shape):
    """Return the part of a mask that is not empty.

    Parameters
    ----------
    mask : ndarray or (int, int, ndarray)
        (H, W) or (1, H, W): bool, or numbers, of which those from 0.5 on count. Or such a part already, which is only
        checked.
    shape : (int, int)
        Height and width of the picture.

    Returns
    -------
    row, column : int
        Where the part begins.
    part : ndarray
        (h, w) bool; without pixels for an empty mask.

    Raises
    ------
    ValueError
        If the mask is of another size than the picture, or the part not inside it.
    """
    if isinstance(mask, tuple):
        row, column, part = mask
        if min(row, column) < 0 or row + part.shape[0] > shape[0] or column + part.shape[1] > shape[1]:
            raise ValueError(f"part of a mask at ({row}, {column}) of shape {part.shape} is not inside {tuple(shape)}")
        return row, column, part
    mask = np.asarray(_array(mask))
    mask = mask[0] if mask.ndim == 3 and mask.shape[0] == 1 else mask
    if mask.shape != tuple(shape):
        raise ValueError(f"mask of an object has shape {mask.shape}; expected {tuple(shape)}, as the picture has")
    inside = mask if mask.dtype == bool else mask >= 0.5
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return 0, 0, np.zeros((0, 0), bool)
    here = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return int(rows[0]), int(columns[0]), inside[here]


# ---- checks and choices --------------------------------------------------------------------------------------------


def _array(value):
    """Return the array of a tensor; anything else as it is."""
    return value.to("cpu").numpy() if hasattr(value, "numpy") else value


def _checked(boxes, labels, scores, masks):
    """Return the parts of detections as arrays that fit together."""
    boxes = np.asarray(_array(boxes), np.float64)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"boxes has shape {boxes.shape}; expected (K, 4) finite numbers: x1, y1, x2, y2")
    found = {"labels": _array(labels), "scores": _array(scores), "masks": _array(masks)}
    for name, values in found.items():
        if values is not None and len(values) != len(boxes):
            raise ValueError(f"{name} has {len(values)} entries; expected {len(boxes)}, one for each box")
    labels = None if labels is None else np.asarray(found["labels"])
    scores = None if scores is None else np.asarray(found["scores"], np.float64)
    return boxes, labels, scores, found["masks"]


def _enlarged(rgb, scale):
    """Return a drawing whose pixels are ``scale`` times as wide and high."""
    if isinstance(scale, bool) or not isinstance(scale, int | np.integer) or scale < 1:
        raise ValueError(f"scale is {scale!r}; expected a whole number of at least 1")
    return rgb if scale == 1 else rgb.repeat(scale, 0).repeat(scale, 1)


def _spans(boxes, shape):
    """Return first column, first row, last column + 1 and last row + 1 of boxes, inside the picture."""
    height, width = shape[:2]
    limits = np.array([width, height, width, height])
    first = np.clip(np.rint(boxes[:, :2]), -1, limits[:2] + 1)
    last = np.clip(np.rint(boxes[:, 2:]), -1, limits[:2] + 1)
    last = np.maximum(last, first + 1)  # at least one pixel
    return np.clip(np.concatenate([first, last], axis=1), 0, limits).astype(int)


def _near(shape):
    """Return up to which gap, in pixels, objects need different colours."""
    return 0.03 * max(shape)


def _paints(colours, boxes, shape):
    """Return (K, 3) float32: the colour of each object."""
    if colours is None:
        palette = np.asarray(CLASS_COLOURS, np.float32)
        return palette[object_colours(boxes, palette, _near(shape))]
    paints = np.asarray(colours, np.float32).reshape(-1, 3)
    if len(paints) != len(boxes):
        raise ValueError(f"colours has {len(paints)} entries; expected {len(boxes)}, one for each box")
    return paints


def _line_width(spans, shape):
    """Return the width of the lines: thin on small pictures and on small objects."""
    if not len(spans):
        return 1
    side = np.median(np.minimum(spans[:, 2] - spans[:, 0], spans[:, 3] - spans[:, 1]))
    return max(1, min(round(min(shape[:2]) / 350), int(side / 12)))


def _matches(true, found, scores):
    """Return pairs (true object, found object) that overlap by half or more, the best found ones first."""
    order = np.arange(len(found)) if scores is None else np.argsort(-np.asarray(scores), kind="stable")
    free, pairs = np.ones(len(true), bool), []
    area = np.prod(true[:, 2:] - true[:, :2], axis=1)
    for j in order:
        corners = np.maximum(true[:, :2], found[j, :2]), np.minimum(true[:, 2:], found[j, 2:])
        shared = np.prod(np.clip(corners[1] - corners[0], 0, None), axis=1)
        iou = shared / np.maximum(area + np.prod(found[j, 2:] - found[j, :2]) - shared, 1e-12) * free
        if len(true) and iou.max() >= 0.5:
            free[iou.argmax()] = False
            pairs.append((iou.argmax(), j))
    return pairs


def _boxes_of_numbers(labels):
    """Return the numbers in a label picture, rising and without 0, and the box around each."""
    boxes: dict[int, np.ndarray] = {}
    for rows in strips(labels.shape):
        ys, xs = np.nonzero(labels[rows])
        values, where = np.unique(labels[rows][ys, xs], return_inverse=True)
        corners = np.full((4, len(values)), -np.inf)
        for corner, at in zip(corners, (-xs, -ys - rows.start, xs + 1, ys + rows.start + 1), strict=True):
            np.maximum.at(corner, where, at)
        for value, corner in zip(values.tolist(), corners.T, strict=True):
            boxes[value] = np.maximum(corner, boxes.get(value, corner))
    numbers = np.array(sorted(boxes), np.int64)
    return numbers, np.array([boxes[n] for n in numbers.tolist()]).reshape(-1, 4) * (-1, -1, 1, 1)


# ---- painting ------------------------------------------------------------------------------------------------------


def _edges(labels):
    """Return the pixels of objects, in a label picture, beside a pixel of something else."""
    edge = np.zeros(labels.shape, bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge & (labels != 0)


def _paint_mask(rgb, row, column, part, paint, opacity, outline):
    """Paint one object: translucent, with a border of the full colour inside its edge."""
    place = rgb[row : row + part.shape[0], column : column + part.shape[1]]
    # the picture's own edge is no edge of an object: what lies beyond is taken to continue
    beyond = [
        (row > 0, row + part.shape[0] < rgb.shape[0]),
        (column > 0, column + part.shape[1] < rgb.shape[1]),
    ]
    for rows in strips(part.shape):
        top, bottom = max(rows.start - outline, 0), min(rows.stop + outline, part.shape[0])
        ends = (beyond[0][0] and top == 0, beyond[0][1] and bottom == part.shape[0])
        inner = _eroded(part[top:bottom], outline, ends, beyond[1])[rows.start - top : rows.stop - top]
        old = place[rows][inner].astype(np.float32)
        place[rows][inner] = np.rint(old + np.float32(opacity) * (paint - old)).astype(np.uint8)
        place[rows][part[rows] & ~inner] = paint


def _eroded(mask, steps, vertical, horizontal):
    """Take ``steps`` pixels off a mask's edges; off the window's own ends only where they are said to be edges."""
    for _ in range(steps):
        smaller = mask.copy()
        smaller[1:] &= mask[:-1]
        smaller[:-1] &= mask[1:]
        smaller[:, 1:] &= mask[:, :-1]
        smaller[:, :-1] &= mask[:, 1:]
        if smaller.size:
            for end, at in zip(vertical, (0, -1), strict=True):
                smaller[at] &= not end
            for end, at in zip(horizontal, (0, -1), strict=True):
                smaller[:, at] &= not end
        mask = smaller
    return mask


def _paint_box(rgb, span, paint, width):
    """Paint the four sides of a box, inside it."""
    x1, y1, x2, y2 = span
    if x2 <= x1 or y2 <= y1:
        return
    rgb[y1 : min(y1 + width, y2), x1:x2] = paint
    rgb[max(y2 - width, y1) : y2, x1:x2] = paint
    rgb[y1:y2, x1 : min(x1 + width, x2)] = paint
    rgb[y1:y2, max(x2 - width, x1) : x2] = paint
