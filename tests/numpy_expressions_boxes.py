"""Operators on boxes once more: all pairs of boxes at once, and a pasted mask as a product of three matrices.

Everything is computed in the type of the case, since comparisons and truncations depend on it.
"""

import numpy as np


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _overlaps(a, b):
    """Return intersection over union of all pairs."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.maximum(high - low, 0).prod(-1)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b))
    return overlap / (area_a[:, None] + area_b - overlap)


def box_iou(inputs, gradient_of):
    return {"y": _overlaps(inputs["a"].astype(inputs["dtype"]), inputs["b"].astype(inputs["dtype"]))}


def nms(inputs, gradient_of, iou_threshold):
    order = np.lexsort((np.arange(len(inputs["scores"])), -inputs["scores"]))
    boxes = inputs["boxes"].astype(inputs["dtype"])[order]
    too_far = _overlaps(boxes, boxes).astype(np.float64) > iou_threshold
    kept = []
    for i in range(len(order)):  # a box stays if none that stayed before it overlaps it too far
        if not too_far[kept, i].any():
            kept.append(i)
    return {"y": order[kept].astype(np.int64)}


def _pasting_matrix(low, high, values, pixels, dtype):
    """Return the weight of each value of a padded mask in each pixel along one axis: (pixels, values)."""
    half, scale = dtype(0.5), dtype(values) / dtype(values - 2)
    centre, radius = (high + low) * half, (high - low) * half * scale
    start, end = int(centre - radius), int(centre + radius)
    at = np.arange(pixels)
    step = dtype(values) / dtype(max(end - start + 1, 1))
    places = np.clip((at - start + half).astype(dtype) * step - half, 0, values - 1)
    weights = np.maximum(1 - np.abs(places[:, None] - np.arange(values)), 0)
    return weights * ((at >= start) & (at <= end))[:, None]


def paste_masks(inputs, gradient_of, image_size):
    dtype, (height, width) = inputs["dtype"], _pair(image_size)
    y = np.zeros((len(inputs["masks"]), 1, height, width))
    for n, (x1, y1, x2, y2) in enumerate(inputs["boxes"].astype(dtype)):
        mask = np.pad(inputs["masks"][n, 0], 1)
        rows = _pasting_matrix(y1, y2, len(mask), height, dtype)
        y[n, 0] = rows @ mask @ _pasting_matrix(x1, x2, len(mask), width, dtype).T
    return {"y": y}


EXPRESSIONS = {"box_iou": box_iou, "nms": nms, "paste_masks": paste_masks}
