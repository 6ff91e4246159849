"""Answers to the questions of notebook 7: from Faster R-CNN to Mask R-CNN, by x-ray."""

import numpy as np

from tinyseg import ops
from tinyseg.boxes import level_of
from tinyseg.lessons.question import Question


def _stride():
    return 2.0 ** level_of(np.array([[0, 0, 150, 60]], np.float32))[0]


def _columns():
    painted = ops.paste_masks(np.ones((1, 1, 28, 28)), np.array([[10.0, 20, 38, 48]]), (64, 64))[0, 0].any(axis=0)
    inner = np.flatnonzero(painted)  # the first and the last column of the grown box get the border's zeros
    return inner[0] - 1, inner[-1] + 1


QUESTIONS = (
    Question(
        name="detectors.1",
        right=4 * 21,
        because="the background has four as well, though nobody reads them",
        wrong=(
            (4 * 20, "leaves out the background, which has four of its own that are never used"),
            (4, "would be the same box for every class, as in the region proposal network"),
            (21, "is the number of scores"),
            (20, "is the number of classes; each has four offsets"),
        ),
        hint="Count the classes as the network does, and the numbers that a box needs.",
    ),
    Question(
        name="detectors.2",
        right=_stride,
        because="the root of its area is about 95 pixels, which gives level 2",
        wrong=(
            (2, "is the level; its stride is two to that power"),
            (8, "is that of a box of 112 by 112 pixels or more; the root of this area is smaller"),
            (16, "is that of level 4, where a box of 224 by 224 pixels goes"),
        ),
        hint="Work out the root of 150 x 60, then k. What is beyond the finest level goes to that one.",
    ),
    Question(
        name="detectors.3",
        right=_columns,
        because="28 pixels grow to 30 about the centre, 24, so from 9 to 39, and both ends belong to it",
        wrong=(
            ((10, 38), "is the box as it was; it grows with the border of zeros"),
            ((9, 38), "leaves out that both ends belong to the grown box"),
            ((10, 37), "is where the box lies before it grows"),
            ((8, 40), "grows by a pixel too much on each side: 28 becomes 30, not 32"),
            ((19, 49), "are the rows; columns go with x, the first and third number of a box"),
        ),
        hint="The mask gets one more number on each side. How many pixels is that here, on each side?",
    ),
    Question(
        name="detectors.4",
        right="disc",
        because="the loss is taken on the mask of the true class, whatever the classifier says",
        wrong=(
            ("triangle", "is what the classifier says; it has no part in the loss of the masks"),
            ("both", "would have the classes compete for each pixel, which Mask R-CNN avoids"),
        ),
        hint="In training the truth is known. Which of the masks is compared with it?",
    ),
    Question(
        name="detectors.5",
        right="beyond the limit",
        because="between the two only the best of all levels are taken, and its box was not among them",
        wrong=(
            ("suppressed", "is what NMS does, and the object was still covered after it"),
            ("wrong class", "can happen in the second stage only: proposals have no class"),
            ("no anchor", "would mean that nothing ever covered it"),
        ),
        hint="What is the one rule between these two stages?",
    ),
    Question(
        name="detectors.6",
        right=True,
        because="masks are made for boxes that have been found already",
        wrong=((False, "would need a way back from the masks to the boxes, and there is none"),),
        hint="Look in the x-ray which stage comes first.",
    ),
)
