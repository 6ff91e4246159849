"""Operators on boxes. None has a gradient: they take tensors or NumPy arrays, and give tensors for tensors."""

import numpy as np

from tinyseg.backend import kernel
from tinyseg.tensor import Tensor, tensor_over


def box_iou(boxes1, boxes2):
    """Return the intersection over union of each box with each other one.

    Parameters
    ----------
    boxes1 : Tensor or ndarray
        ``(N, 4)``: boxes (x1, y1, x2, y2), float32 or float64.
    boxes2 : Tensor or ndarray
        ``(M, 4)``, of the same type.

    Returns
    -------
    Tensor or ndarray
        ``(N, M)``: from 0 to 1, and NaN for two boxes without area.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, or a coordinate is not finite.

    Notes
    -----
    As ``torchvision.ops.box_iou``.
    """
    return _like(boxes1, kernel("box_iou")(_array(boxes1), _array(boxes2)))


def nms(boxes, scores, iou_threshold):
    """Keep the best of boxes that overlap (non-maximum suppression).

    Parameters
    ----------
    boxes : Tensor or ndarray
        ``(N, 4)``: boxes (x1, y1, x2, y2), float32 or float64.
    scores : Tensor or ndarray
        ``(N,)``, of the same type.
    iou_threshold : float
        From 0 to 1: boxes that overlap more than this with a better one are left out.

    Returns
    -------
    Tensor or ndarray
        int64, ``(K,)``: which boxes are kept, by falling score; of equal scores the earlier box first.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, a coordinate is not finite, a score is NaN or the threshold is out of range.

    Notes
    -----
    As ``torchvision.ops.nms``.
    """
    return _like(boxes, kernel("nms")(_array(boxes), _array(scores), iou_threshold))


def batched_nms(boxes, scores, idxs, iou_threshold):
    """Keep the best of boxes that overlap, each class (or pyramid level) by itself.

    Parameters
    ----------
    boxes : Tensor or ndarray
        ``(N, 4)``: boxes (x1, y1, x2, y2), float32 or float64.
    scores : Tensor or ndarray
        ``(N,)``, of the same type.
    idxs : Tensor or ndarray
        Integers, ``(N,)``: the class of each box. Boxes of different classes never suppress each other.
    iou_threshold : float
        From 0 to 1: boxes that overlap more than this with a better one of their class are left out.

    Returns
    -------
    Tensor or ndarray
        int64, ``(K,)``: which boxes are kept, by falling score; of equal scores the earlier box first.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, a coordinate is not finite, a score is NaN or the threshold is out of range.

    Notes
    -----
    A run for each class. ``torchvision.ops.batched_nms`` runs once on a few boxes, after shifting each class to a
    place of its own: that rounds coordinates, and now and then keeps another box.
    """
    of_boxes, of_scores, classes = _array(boxes), _array(scores), np.asarray(_array(idxs))
    if classes.dtype.kind not in "iu" or classes.shape != of_boxes.shape[:1]:
        raise ValueError(
            f"idxs has dtype {classes.dtype} and shape {classes.shape}; expected integers, {of_boxes.shape[:1]}"
        )
    if len(classes) == 0 or of_scores.shape != classes.shape:
        return nms(boxes, scores, iou_threshold)  # nothing to keep, or a complaint about the scores
    run, keep = kernel("nms"), []
    by_class = np.argsort(classes, kind="stable")
    for members in np.split(by_class, np.flatnonzero(np.diff(classes[by_class])) + 1):
        keep.append(members[run(of_boxes[members], of_scores[members], iou_threshold)])
    kept = np.sort(np.concatenate(keep))
    return _like(boxes, kept[np.argsort(-of_scores[kept], kind="stable")].astype(np.int64))


def paste_masks(masks, boxes, image_size):
    """Lay each mask, predicted over its box, into a picture of its own.

    Parameters
    ----------
    masks : Tensor or ndarray
        ``(N, 1, M, M)``, float32 or float64.
    boxes : Tensor or ndarray
        ``(N, 4)``: boxes (x1, y1, x2, y2) in picture pixels, of the same type.
    image_size : (int, int)
        Height and width of the picture.

    Returns
    -------
    Tensor or ndarray
        ``(N, 1, H, W)``: the masks, resized bilinearly; 0 outside their boxes.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, or a coordinate is not finite or beyond 2**30.

    Notes
    -----
    As torchvision's ``paste_masks_in_image``: masks get a border of zeros, and boxes grow to match.
    """
    return _like(masks, kernel("paste_masks")(_array(masks), _array(boxes), image_size))


def _array(value):
    """Return the array of a tensor; anything else as it is, for the kernel to judge."""
    return value.array if isinstance(value, Tensor) else value


def _like(example, array):
    """Return a result as a tensor where the input was one."""
    return tensor_over(array) if isinstance(example, Tensor) else array
