"""Intersection over union: how far two boxes overlap, from 0 (apart) to 1 (the same).

    overlap   = max(0, min(a.x2, b.x2) - max(a.x1, b.x1)) * max(0, min(a.y2, b.y2) - max(a.y1, b.y1))
    area(box) = (x2 - x1) * (y2 - y1)
    iou[i, j] = overlap / (area(a[i]) + area(b[j]) - overlap)

Nothing is added to the sizes or the denominator: two boxes without area give 0/0, which is NaN. The area of a box that
is reversed along one axis is negative. All this is torchvision's convention.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def box_iou(a, b):
    """Return the intersection over union of each box of ``a`` with each of ``b``.

    Parameters
    ----------
    a : ndarray, shape (N, 4)
        Boxes (x1, y1, x2, y2), float32 or float64.
    b : ndarray, shape (M, 4)
        Boxes of the same type.

    Returns
    -------
    ndarray, shape (N, M)
        From 0 to 1, and NaN for two boxes without area.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If a shape is not (N, 4) or a coordinate is NaN or infinite.

    Notes
    -----
    Follows ``torchvision.ops.box_iou``. Arithmetic is in the type of the boxes.
    """
    a, b = checks.box_iou(a, b)
    iou = np.empty((a.shape[0], b.shape[0]), a.dtype)
    # without the JIT, NumPy would warn of 0/0 and of areas beyond the largest float
    with np.errstate(all="ignore"):
        _box_iou_kernel(iou, a, b)
    return iou


@jit
def _box_iou_kernel(iou, a, b):
    """The formula, for each pair."""
    zero = a.dtype.type(0)
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            ax1, ay1, ax2, ay2 = a[i]
            bx1, by1, bx2, by2 = b[j]
            overlap = max(zero, min(ax2, bx2) - max(ax1, bx1)) * max(zero, min(ay2, by2) - max(ay1, by1))
            area_a = (ax2 - ax1) * (ay2 - ay1)
            area_b = (bx2 - bx1) * (by2 - by1)
            iou[i, j] = overlap / (area_a + area_b - overlap)
