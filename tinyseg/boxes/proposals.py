"""Proposals: the few of a region proposal network's many boxes that go on to the classifier."""

import numpy as np

from tinyseg import ops
from tinyseg.backend import host_work
from tinyseg.boxes.coding import clip_to_picture
from tinyseg.watching import tell


def remove_small_boxes(boxes, min_size):
    """Return which boxes are large enough.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        Boxes (x1, y1, x2, y2).
    min_size : float
        Least width and height; a box of exactly this size stays.

    Returns
    -------
    ndarray of int64, shape (K,)
        Indices of the boxes to keep, in rising order.
    """
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.flatnonzero((w >= min_size) & (h >= min_size)).astype(np.int64)


@host_work()
def filter_proposals(
    boxes,
    scores,
    level_sizes,
    image_size,
    top_n_before,
    top_n_after,
    iou_threshold=0.7,
    min_size=1e-3,
    *,
    score_threshold=0.0,
    logits=False,
):
    """Return the best proposals of one picture.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        Boxes (x1, y1, x2, y2) of all levels, one level after the other.
    scores : ndarray, shape (N,)
        How sure the network is of an object.
    level_sizes : sequence of int
        How many of the boxes belong to each level.
    image_size : (int, int)
        Height and width of the picture; boxes are cut off at its borders.
    top_n_before : int
        Boxes of each level that enter the suppression, by score.
    top_n_after : int
        Boxes of all levels together that leave it, by score.
    iou_threshold : float
        Boxes that overlap more than this with a better one of their level are left out.
    min_size : float
        Boxes that are narrower or lower than this, once cut off, are left out.
    score_threshold : float
        Boxes with a lower score are left out.
    logits : bool
        Whether the scores are logits, which become probabilities after the first selection, that of each level: in
        float32 many high logits share one probability, 1.

    Returns
    -------
    boxes : ndarray, shape (K, 4)
        The proposals, by falling score; K is at most ``top_n_after``.
    scores : ndarray, shape (K,)
        Their scores.

    Raises
    ------
    ValueError
        If the sizes of the levels do not add up to the number of boxes.

    Notes
    -----
    The steps and their order are those of torchvision's ``RegionProposalNetwork.filter_proposals``. Of equal scores the
    earlier box comes first.
    """
    if sum(level_sizes) != len(boxes) or scores.shape != (len(boxes),):
        raise ValueError(
            f"boxes has {len(boxes)} rows, scores the shape {scores.shape} and level_sizes the sum {sum(level_sizes)}; "
            "expected the same number"
        )
    ends = np.cumsum([0, *level_sizes])
    best = [start + _best(scores[start:end], top_n_before) for start, end in zip(ends[:-1], ends[1:], strict=True)]
    levels = np.repeat(np.arange(len(best)), [len(indices) for indices in best])
    chosen = np.concatenate(best) if best else np.zeros(0, np.int64)
    boxes, scores = clip_to_picture(boxes[chosen], image_size), scores[chosen]
    if logits:
        scores = ops.sigmoid(scores).array
    large = remove_small_boxes(boxes, min_size)
    good = large[scores[large] >= score_threshold]
    apart = good[ops.batched_nms(boxes[good], scores[good], levels[good], iou_threshold)]
    kept = apart[:top_n_after]
    steps = {"best": chosen, "large": large, "good": good, "apart": apart, "kept": kept}
    tell("proposals", boxes=boxes, scores=scores, levels=levels, **steps)
    return boxes[kept], scores[kept]


def _best(scores, count):
    """Return which scores are the highest, at most ``count``, by falling score; of equal ones the earlier first."""
    falling = -scores
    if 0 < count < len(scores):
        limit = np.partition(falling, count - 1)[count - 1]
        if not np.isnan(limit):  # NaN come last: none is among the best
            better = np.flatnonzero(falling < limit)
            best = np.sort(np.concatenate([better, np.flatnonzero(falling == limit)[: count - len(better)]]))
            return best[np.argsort(falling[best], kind="stable")]
    return np.argsort(falling, kind="stable")[:count]
