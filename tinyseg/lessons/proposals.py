"""Answers to the questions of notebook 5: anchors, region proposals, suppression."""

import math

import numpy as np

from tinyseg import ops
from tinyseg.boxes import AnchorGenerator, clip_to_picture, decode, match
from tinyseg.lessons.question import Question


def _iou():
    return ops.box_iou(np.array([[0.0, 0, 4, 4]]), np.array([[2.0, 2, 6, 6]]))[0, 0]


def _anchors():
    generator = AnchorGenerator(((8,), (16,), (32,)), (0.5, 1, 2))
    return sum(map(len, generator((64, 96), ((16, 24), (8, 12), (4, 6)))))


def _decoded():
    return decode(np.array([[0.5, 0, 0, math.log(2)]]), np.array([[0.0, 0, 20, 10]]))[0, 0]


def _clipped():
    return clip_to_picture(_decoded(), (100, 100))


def _matches():
    return match(np.array([[0.65, 0.45, 0.2]]), 0.7, 0.3, allow_low_quality=True)


def _kept():
    iou = np.array([[1, 0.6, 0.2], [0.6, 1, 0.6], [0.2, 0.6, 1]])
    kept: list[int] = []
    for box in range(3):  # by falling score
        if not any(iou[best, box] > 0.5 for best in kept):
            kept.append(box)
    return kept


QUESTIONS = (
    Question(
        name="proposals.1",
        right=_iou,
        because="4 pixels are shared, and 16 + 16 - 4 are covered by either",
        wrong=(
            (4 / 32, "counts the shared pixels twice in the union"),
            (4 / 16, "divides by the area of one box alone, not of the union"),
            (9 / 41, "adds 1 to each width and height, as if x2 and y2 were the last pixels themselves"),
            (4, "is the area that they share; divide it by the area of the union"),
        ),
        hint="How wide and how high is the part that both cover? And what do they cover together?",
    ),
    Question(
        name="proposals.2",
        right=_anchors,
        because="384 + 96 + 24 cells have three anchors each",
        wrong=(
            (384 + 96 + 24, "is the number of cells; each has an anchor for every ratio"),
            (3 * 3 * (384 + 96 + 24), "gives each level all three sizes; here each has one"),
            (12 * (384 + 96 + 24), "is how many offsets there are, four for each anchor"),
            (64 * 96 * 3, "puts anchors around every pixel; they stand around the cells of the maps"),
            (3 * 384, "leaves out the two coarser levels"),
        ),
        hint="How many cells has each map? A map of stride 4 has a quarter of the picture's rows and columns.",
    ),
    Question(
        name="proposals.3",
        right=_decoded,
        because="the centre (10, 5) moves by half a width to (20, 5), and the height doubles about it",
        wrong=(
            ((10, 0, 30, 20), "lets the box grow from its upper edge; it grows about its centre, up and down"),
            (_clipped, "is cut off at the picture's border; decoding does not do that, a later step does"),
            ((0.5, -5, 20.5, 15), "takes dx for pixels; it is measured in widths of the anchor"),
            ((5, -5, 25, 15), "measures dx in heights of the anchor; it is measured in widths"),
            ((10, 0, 30, 10), "leaves out dh: the height is multiplied by e to the power of dh"),
        ),
        hint="Work out the anchor's centre, width and height. Move the centre, scale the sides, go back to corners.",
    ),
    Question(
        name="proposals.4",
        right=_matches,
        because="no anchor reaches 0.7, so the object's best one becomes positive; 0.45 is in between, 0.2 below 0.3",
        wrong=(
            ((-2, -2, -1), "leaves out that the best anchor of each object is positive, whatever its IoU"),
            ((0, 0, -1), "takes 0.5 or so for the threshold; between 0.3 and 0.7 an anchor is ignored"),
            ((0, -1, -1), "makes 0.45 background; only what is below 0.3 is"),
            ((-1, -1, -1), "makes all of them background; what is between 0.3 and 0.7 is not"),
            ((0, -2, -2), "ignores 0.2; what is below 0.3 is background"),
        ),
        hint="Apply the two thresholds first. Then look for the best anchor of the object.",
    ),
    Question(
        name="proposals.5",
        right=_kept,
        because="box 0 removes box 1, which then removes nothing, and box 2 overlaps box 0 by 0.2 only",
        wrong=(
            ((0,), "lets box 1 remove box 2, but box 1 is gone before its turn comes"),
            ((0, 1, 2), "removes nothing; box 1 overlaps box 0 by more than 0.5"),
            ((1,), "keeps the box with most overlaps; the order is that of the scores"),
            ((0, 1), "removes box 2 by box 1, though box 1 itself overlaps the better box 0 too much"),
        ),
        hint="Go by falling score, and ask at each box that is still there whom it removes.",
    ),
    Question(
        name="proposals.6",
        right="backbone",
        because="it reaches the pooled features, and through them the backbone; the proposals are constants to it",
        wrong=(
            ("head", "is cut off: the boxes that the head gives are detached before anything is pooled in them"),
            ("both", "would need a gradient of the boxes, which are detached"),
            ("neither", "forgets the features that are pooled inside the boxes: these are on the tape"),
        ),
        hint="Two things go into the pooling of a proposal: a box, and a map. Which of them is on the tape?",
    ),
)
