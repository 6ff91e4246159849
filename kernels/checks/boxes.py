"""Checks of the operators on boxes: overlap, suppression, pasting of masks.

Values of arrays on a device are not looked at here: the backend does that itself.
"""

import numpy as np

from kernels.checks.arguments import array, is_on_device, number, pair, same_shape

_CORNERS = ("x1", "y1", "x2", "y2")
#: Largest magnitude of a coordinate where boxes are turned into whole pixels.
FARTHEST = 2**30


def boxes(name, a, dtype=None):
    """Return ``a`` as boxes: a float array (N, 4) of finite corners."""
    a = array(name, a, None, dtype)
    if a.ndim != 2 or a.shape[1] != 4:
        raise ValueError(f"{name} has shape {a.shape}; expected (N, 4), a row (x1, y1, x2, y2) for each box")
    if is_on_device(a):
        return a
    if not np.isfinite(a).all():
        row, column = np.argwhere(~np.isfinite(a))[0]
        raise ValueError(f"{name} has {_CORNERS[column]} {a[row, column]} in row {row}; expected finite coordinates")
    return a


def box_iou(a, b):
    """Return ``a, b``."""
    a = boxes("a", a)
    return a, boxes("b", b, a.dtype)


def nms(of_boxes, scores, iou_threshold):
    """Return ``boxes, scores, iou_threshold``."""
    of_boxes = boxes("boxes", of_boxes)
    scores = same_shape("scores", array("scores", scores, None, of_boxes.dtype), of_boxes.shape[:1], "one per box")
    if not is_on_device(scores) and np.isnan(scores).any():
        raise ValueError(f"scores has nan in row {np.isnan(scores).argmax()}; expected numbers")
    return of_boxes, scores, number("iou_threshold", iou_threshold, 0, 1)


def paste_masks(masks, of_boxes, image_size):
    """Return ``masks, boxes, (height, width)``."""
    masks = array("masks", masks, 4)
    if masks.shape[1] != 1 or masks.shape[2] != masks.shape[3] or masks.shape[2] < 1:
        raise ValueError(f"masks has shape {masks.shape}; expected (N, 1, M, M), with M of at least 1")
    of_boxes = boxes("boxes", of_boxes, masks.dtype)
    same_shape("boxes", of_boxes, (masks.shape[0], 4), "one box per mask")
    if is_on_device(of_boxes):
        return masks, of_boxes, pair("image_size", image_size, 1)
    far = np.abs(of_boxes) > FARTHEST
    if far.any():
        row, column = np.argwhere(far)[0]
        raise ValueError(
            f"boxes has {_CORNERS[column]} {of_boxes[row, column]} in row {row}; "
            f"expected magnitudes of at most {FARTHEST} pixels"
        )
    return masks, of_boxes, pair("image_size", image_size, 1)
