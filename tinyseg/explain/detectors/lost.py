"""Where a detector lost an object, and why: the question that everybody asks who trains one."""

from typing import NamedTuple

import numpy as np

from tinyseg import ops
from tinyseg.backend import host_work
from tinyseg.explain.detectors.stages import overlaps


class LostObject(NamedTuple):
    """What became of a true object. ``print`` shows the sentence.

    Attributes
    ----------
    number : int
        Of the object, from 0.
    stage : str
        Name of the first stage without a box that covers it; ``"found"`` where it was found.
    reason : str
        ``"found"``, ``"no anchor"`` (none ever covered it), ``"scored too low"`` (its anchors were not among the best
        of their map), ``"moved away"``, ``"cut off"`` (at the border), ``"too small"``, ``"below the threshold"``,
        ``"suppressed"`` (as the double of a better box), ``"beyond the limit"`` (better boxes filled the places) or
        ``"wrong class"``.
    text : str
        The same in a sentence, with the numbers.
    row : int or None
        Which box of the stage before that one covered it last, the best of them.
    iou : float
        That box's overlap with it; for ``"no anchor"`` the best anchor's.
    by : int or None
        Where it was suppressed: the row, in ``stage``, of the box that did it.
    """

    number: int
    stage: str
    reason: str
    text: str
    row: int | None
    iou: float
    by: int | None = None

    def __str__(self):
        return f"object {self.number}: {self.text}"


def lost_object(xray, number, threshold):
    """Return what became of a true object.

    Parameters
    ----------
    xray : DetectorXRay
        With truth.
    number : int
        Of the object.
    threshold : float
        Overlap from which on a box covers it.

    Returns
    -------
    LostObject
    """
    stages = [stage for stage in xray.stages if stage.boxes is not None]
    iou = [overlaps(stage, xray.truth)[number] for stage in stages]
    covered = [bool((of_stage >= threshold).any()) for of_stage in iou]
    if covered[-1]:
        row = int(np.flatnonzero(iou[-1] >= threshold)[0])  # by falling score: the surest
        found = stages[-1]
        text = f"found, with a score of {found.scores[row]:.2f} and an overlap of {iou[-1][row]:.2f}"
        return LostObject(number, "found", "found", text, row, float(iou[-1][row]))
    if not any(covered):
        best = int(iou[0].argmax()) if len(iou[0]) else None
        value = 0.0 if best is None else float(iou[0][best])
        text = (f"no anchor overlaps it by {threshold:g} or more (the best by {value:.2f}), nor does any box made of "
                "one: anchors of its size and shape are missing")  # fmt: skip
        return LostObject(number, "anchors", "no anchor", text, best, value)
    last = max(np.flatnonzero(covered))
    before, after = stages[last], stages[last + 1]
    rows = np.flatnonzero(iou[last] >= threshold)
    row = int(rows[_goodness(xray, before, after, iou[last])[rows].argmax()])
    case = _Case(xray, number, threshold, before, after, row, float(iou[last][row]), iou[last + 1])
    reason, text, by = _REASONS[after.name](case)
    return LostObject(number, after.name, reason, text, row, case.iou, by)


class _Case(NamedTuple):
    """An object, the last box that covered it, and the stage that did not let it pass."""

    xray: object
    number: int
    threshold: float
    before: object
    after: object
    row: int
    iou: float
    iou_after: np.ndarray


def _goodness(xray, before, after, iou):
    """Return by what the boxes that cover an object are ranked: those that were nearest to going on come first."""
    if after.name == "top":
        return -_ranks(xray)[0]
    return iou if before.scores is None or after.name in _MOVED else before.scores


def _ranks(xray):
    """Return the rank of every anchor among those of its map, from 1, and its logit."""
    anchors = xray["anchors"]
    maps = xray["objectness"].arrays.values()
    logits = np.concatenate([x.transpose(1, 2, 0).ravel() for x in maps])  # in the order of the anchors
    ranks = np.empty(len(logits), np.int64)
    for level in np.unique(anchors.levels):
        rows = np.flatnonzero(anchors.levels == level)
        ranks[rows[np.argsort(-logits[rows], kind="stable")]] = np.arange(1, len(rows) + 1)
    return ranks, logits


def _not_top(case):
    ranks, logits = _ranks(case.xray)
    level = case.before.levels[case.row]
    text = (f"the likeliest anchor that covers it (overlap {case.iou:.2f}) has rank {ranks[case.row]} of the "
            f"{(case.before.levels == level).sum()} on map {level}, and "
            f"{(case.after.levels == level).sum()} go on; its score is {_sigmoid(logits[case.row]):.3f}")  # fmt: skip
    return "scored too low", text, None


def _moved(case):
    best = case.iou_after.max(initial=0)
    whose = "" if case.after.labels is None else f", as {case.xray.class_name(case.xray.truth['labels'][case.number])},"
    text = (f"the box that covered it with {case.iou:.2f} was moved{whose} and no box covers it by "
            f"{case.threshold:g} any more (the best by {best:.2f})")  # fmt: skip
    return "moved away", text, None


def _cut(case):
    return "cut off", f"the box that covered it with {case.iou:.2f} reaches beyond the picture and was cut off", None


def _tiny(case):
    w, h = case.before.boxes[case.row, 2:] - case.before.boxes[case.row, :2]
    return "too small", f"the box that covered it with {case.iou:.2f} has only {w:.2g}x{h:.2g} pixels", None


def _unlikely(case):
    limit = case.xray.model.rpn.score_thresh
    text = f"the likeliest box that covers it has a score of {case.before.scores[case.row]:.3f}; {limit:g} is the least"
    return "below the threshold", text, None


@host_work()
def _suppressed(case):
    before, after, row = case.before, case.after, case.row
    of_class = before.labels is not None
    groups = (before.labels, after.labels) if of_class else (before.levels, after.levels)
    rivals = np.flatnonzero((groups[1] == groups[0][row]) & (after.scores >= before.scores[row]))
    iou = np.nan_to_num(ops.box_iou(before.boxes[row : row + 1].copy(), after.boxes[rivals].copy()))[0]
    limit = case.xray.model.roi_heads.nms_thresh if of_class else case.xray.model.rpn.nms_thresh
    first = int((iou > limit).argmax())  # the best box that overlaps it too much
    by = int(rivals[first])
    text = (f"its box (score {before.scores[row]:.2f}, overlap {case.iou:.2f}) was suppressed by box {by} (score "
            f"{after.scores[by]:.2f}), which overlaps that box by {iou[first]:.2f}, more than {limit:g}, but the "
            f"object by {case.iou_after[by]:.2f} only")  # fmt: skip
    return "suppressed", text, by


def _limit(case):
    text = (f"its box (score {case.before.scores[case.row]:.3f}, overlap {case.iou:.2f}) is number {case.row + 1} of "
            f"{case.before.count}, and {case.after.count} go on")  # fmt: skip
    return "beyond the limit", text, None


def _unsure(case):
    xray, boxes = case.xray, case.xray["class_boxes"]
    probabilities = xray["classes"].arrays["probabilities"][boxes.source[case.row]]
    true, limit = int(boxes.labels[case.row]), xray.model.roi_heads.score_thresh
    likeliest = int(probabilities.argmax())
    text = (f"the box that covers it with {case.iou:.2f} has a score of {probabilities[true]:.3f} as "
            f"{xray.class_name(true)}, not above {limit:g}")  # fmt: skip
    if likeliest not in (0, true):
        return (
            "wrong class",
            f"{text}; it is taken for {xray.class_name(likeliest)} ({probabilities[likeliest]:.2f})",
            None,
        )
    return "below the threshold", f"{text}; for the background it is {probabilities[0]:.2f}", None


def _rounded(case):
    return "moved away", f"going back to the picture's own pixels rounded its overlap of {case.iou:.4f} away", None


def _sigmoid(x):
    return ops.sigmoid(np.array([x])).array[0]


#: What each stage may do to the last box of an object.
_REASONS = {
    "top": _not_top, "refined": _moved, "clipped": _cut, "large": _tiny, "likely": _unlikely, "nms": _suppressed,
    "proposals": _limit, "class_boxes": _moved, "threshold": _unsure, "class_large": _tiny, "class_nms": _suppressed,
    "detections": _limit, "found": _rounded,
}  # fmt: skip
_MOVED = ("refined", "clipped", "class_boxes", "found")
