"""Intersection over union. One task computes some rows; a row is one box of ``a`` against vectors of boxes of ``b``.

The coordinates of ``b`` are laid out by corner first, so that neighbouring boxes fill a vector.
"""

import numpy as np
from numba import prange

from kernels import checks
from kernels.jit import jit

#: Pairs that one task computes, about.
_PAIRS = 32768


def box_iou(a, b):
    """Return the intersection over union of each box of ``a`` with each of ``b``.

    Parameters
    ----------
    a : ndarray, (N, 4), float32 or float64
        Boxes (x1, y1, x2, y2).
    b : ndarray, (M, 4)
        Boxes of the same type.

    Returns
    -------
    ndarray, (N, M)
        From 0 to 1, and NaN for two boxes without area.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If a shape is not (N, 4) or a coordinate is NaN or infinite.

    Notes
    -----
    As ``torchvision.ops.box_iou``.
    """
    a, b = checks.box_iou(a, b)
    iou = np.empty((a.shape[0], b.shape[0]), a.dtype)
    if iou.size:
        _box_iou_kernel(iou, _by_corner(a), _by_corner(b), max(1, _PAIRS // b.shape[0]))
    return iou


def _by_corner(boxes):
    """Return a copy of shape (4, N), the last axis being the boxes."""
    return boxes.T.copy()


@jit(parallel=True)
def _box_iou_kernel(iou, a, b, rows):
    for task in prange((iou.shape[0] + rows - 1) // rows):
        _iou_rows(np.int64(task) * rows, rows, iou, a, b)


@jit
def _iou_rows(first, rows, iou, a, b):
    for i in range(first, min(first + rows, iou.shape[0])):
        _iou_row(iou[i], a[0, i], a[1, i], a[2, i], a[3, i], b[0], b[1], b[2], b[3])


@jit
def _iou_row(iou, ax1, ay1, ax2, ay2, x1, y1, x2, y2):
    zero = iou.dtype.type(0)
    area = (ax2 - ax1) * (ay2 - ay1)
    for j in range(iou.size):
        width = min(ax2, x2[j]) - max(ax1, x1[j])
        height = min(ay2, y2[j]) - max(ay1, y1[j])
        overlap = (width if width > zero else zero) * (height if height > zero else zero)
        iou[j] = overlap / (area + (x2[j] - x1[j]) * (y2[j] - y1[j]) - overlap)
