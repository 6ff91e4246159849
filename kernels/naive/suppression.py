"""Non-maximum suppression: of boxes that overlap, keep the one with the highest score.

    take the boxes by falling score; for each one that is still there,
        keep it
        suppress every later box with  iou > iou_threshold

Boxes of equal scores are taken in the order they came in. A box of exactly the threshold stays, and so does one whose
overlap is 0/0 (two boxes without area): NaN is not larger than anything. All this is torchvision's convention.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit
from kernels.naive.iou import box_iou


def nms(boxes, scores, iou_threshold):
    """Keep the best of boxes that overlap.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        Boxes (x1, y1, x2, y2), float32 or float64.
    scores : ndarray, shape (N,)
        A score for each box, of the same type.
    iou_threshold : float
        From 0 to 1: boxes that overlap more than this with a better one are left out.

    Returns
    -------
    ndarray of int64, shape (K,)
        Which boxes are kept, by falling score; of equal scores the earlier box first.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If shapes do not fit, a coordinate is NaN or infinite, a score is NaN, or the threshold is out of range.

    Notes
    -----
    Follows ``torchvision.ops.nms``. The overlap is computed in the type of the boxes and compared in float64.
    """
    boxes, scores, iou_threshold = checks.nms(boxes, scores, iou_threshold)
    order = np.argsort(-scores, kind="stable")
    suppressed = np.zeros(order.size, np.bool_)
    _nms_kernel(suppressed, box_iou(boxes[order], boxes[order]), iou_threshold)
    return order[~suppressed].astype(np.int64)


@jit
def _nms_kernel(suppressed, iou, iou_threshold):
    """Each box that is still there suppresses the later ones that overlap it too far."""
    N = suppressed.size
    for i in range(N):
        if not suppressed[i]:
            for j in range(i + 1, N):
                if np.float64(iou[i, j]) > iou_threshold:
                    suppressed[j] = True
