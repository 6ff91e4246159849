"""Matching: which true box each anchor or proposal is to learn from."""

import numpy as np

#: Instead of a true box: what is background, and what lies between the thresholds and takes no part in training.
BACKGROUND, IGNORED = -1, -2


def match(iou, high_threshold, low_threshold, allow_low_quality=False):
    """Assign a true box, background or neither to each candidate.

    Parameters
    ----------
    iou : ndarray, shape (M, N)
        Overlap of each of M true boxes with each of N candidates (anchors or proposals).
    high_threshold : float
        A candidate of at least this overlap is matched with the true box it overlaps most; of equal ones the first.
    low_threshold : float
        A candidate whose largest overlap is below this is background; one in between is ignored.
    allow_low_quality : bool
        Whether each true box also claims the candidates that overlap it most, all of them if several do equally,
        however little that is. Such a candidate is then matched with the true box that *it* overlaps most.

    Returns
    -------
    ndarray of int64, shape (N,)
        Index of the true box, or ``BACKGROUND`` (-1), or ``IGNORED`` (-2). Without true boxes all is background.

    Raises
    ------
    ValueError
        If the low threshold is above the high one, or iou does not have two axes.

    Notes
    -----
    As torchvision's ``Matcher``, also in this: a true box that no candidate overlaps claims, as low-quality matches,
    all candidates.
    """
    if low_threshold > high_threshold:
        raise ValueError(f"low_threshold is {low_threshold}; expected at most high_threshold, {high_threshold}")
    if iou.ndim != 2:
        raise ValueError(f"iou has shape {iou.shape}; expected (true boxes, candidates)")
    if iou.size == 0:
        return np.full(iou.shape[1], BACKGROUND, np.int64)
    largest = iou.max(axis=0)
    matches = np.where(largest < low_threshold, BACKGROUND, IGNORED)
    matched = ~(largest < high_threshold)  # so that NaN matches, as it is the largest of all to argmax
    if allow_low_quality:
        matched |= (iou == iou.max(axis=1, keepdims=True)).any(axis=0)
    few = np.flatnonzero(matched)
    matches[few] = iou[:, few].argmax(axis=0)
    return matches.astype(np.int64)
