"""Non-maximum suppression. Blocks of boxes are decided in turn, each box against vectors of later ones.

Within a block every decision depends on those before it. The block's survivors then suppress among all later boxes in
parallel, one task per tile of boxes; what a task writes does not depend on who runs it.
"""

import numpy as np
from numba import prange

from kernels import checks
from kernels.jit import jit

_BLOCK = 256
_TILE = 512


def nms(boxes, scores, iou_threshold):
    """Keep the best of boxes that overlap.

    Parameters
    ----------
    boxes : ndarray, (N, 4), float32 or float64
        Boxes (x1, y1, x2, y2).
    scores : ndarray, (N,)
        A score for each box, of the same type.
    iou_threshold : float
        From 0 to 1: boxes that overlap more than this with a better one are left out.

    Returns
    -------
    ndarray of int64, (K,)
        Which boxes are kept, by falling score; of equal scores the earlier box first.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If shapes do not fit, a coordinate is NaN or infinite, a score is NaN, or the threshold is out of range.

    Notes
    -----
    As ``torchvision.ops.nms``: an overlap of exactly the threshold, or of 0/0, suppresses nothing.
    """
    boxes, scores, iou_threshold = checks.nms(boxes, scores, iou_threshold)
    order = np.argsort(-scores, kind="stable")
    suppressed = np.zeros(order.size, np.uint8)
    if order.size:
        corners = np.ascontiguousarray(boxes[order].T)
        _nms_kernel(suppressed, corners, np.empty(order.size, boxes.dtype), _rounded_down(iou_threshold, boxes.dtype))
    return order[suppressed == 0].astype(np.int64)


def _rounded_down(threshold, dtype):
    """Return the largest number of the type that is not above the threshold: overlaps exceed both, or neither."""
    rounded = dtype.type(threshold)
    return np.nextafter(rounded, dtype.type(-1)) if float(rounded) > threshold else rounded


@jit(parallel=True)
def _nms_kernel(suppressed, corners, areas, threshold):
    boxes = suppressed.size
    _areas(areas, corners[0], corners[1], corners[2], corners[3])
    for start in range(0, boxes, _BLOCK):
        stop = min(start + _BLOCK, boxes)
        _decide_block(start, stop, suppressed, corners, areas, threshold)
        for tile in prange((boxes - stop + _TILE - 1) // _TILE):
            _suppress_tile(stop + np.int64(tile) * _TILE, start, stop, suppressed, corners, areas, threshold)


@jit
def _areas(areas, x1, y1, x2, y2):
    for i in range(areas.size):
        areas[i] = (x2[i] - x1[i]) * (y2[i] - y1[i])


@jit
def _decide_block(start, stop, suppressed, corners, areas, threshold):
    """Let each box of a block that is still there suppress later ones of the block."""
    for i in range(start, stop):
        if not suppressed[i]:
            _suppress(i, i + 1, stop, suppressed, corners, areas, threshold)


@jit
def _suppress_tile(first, start, stop, suppressed, corners, areas, threshold):
    """Let what is left of a block suppress boxes of a later tile."""
    for i in range(start, stop):
        if not suppressed[i]:
            _suppress(i, first, min(first + _TILE, suppressed.size), suppressed, corners, areas, threshold)


@jit
def _suppress(i, first, last, suppressed, corners, areas, threshold):
    """Mark which boxes from ``first`` up to ``last`` overlap box i by more than the threshold."""
    # slices begin at 0, so that the compiler sees indices that are never negative, and makes vectors
    x1, y1, x2, y2 = corners[0][first:last], corners[1][first:last], corners[2][first:last], corners[3][first:last]
    marks, area = suppressed[first:last], areas[first:last]
    ax1, ay1, ax2, ay2, own = corners[0, i], corners[1, i], corners[2, i], corners[3, i], areas[i]
    zero = threshold - threshold
    for j in range(marks.size):
        width = min(ax2, x2[j]) - max(ax1, x1[j])
        height = min(ay2, y2[j]) - max(ay1, y1[j])
        overlap = (width if width > zero else zero) * (height if height > zero else zero)
        marks[j] |= np.uint8(overlap / (own + area[j] - overlap) > threshold)
