"""Answers to the questions of notebook 1: what goes in and what comes out."""

import numpy as np

from tinyseg.data.sample import boxes_of
from tinyseg.evaluation import confusion_counts, dice, iou
from tinyseg.lessons.question import Question

#: The two masks of question 1: 6 and 5 pixels, of which 3 are in both.
TRUTH = ((0, 1, 1, 0), (0, 1, 1, 0), (0, 1, 1, 0), (0, 0, 0, 0))
PREDICTION = ((0, 0, 0, 0), (0, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 0))


def _overlaps():
    """Return the pixels in both masks, in the truth and in the prediction."""
    truth, prediction = np.array(TRUTH, bool), np.array(PREDICTION, bool)
    return (truth & prediction).sum(), truth.sum(), prediction.sum()


def _score(measure):
    """Return a measure of the masks, for class 1."""
    return measure(confusion_counts(PREDICTION, TRUTH, classes=2))[1]


def _box():
    """Return the box of question 4."""
    instances = np.zeros((8, 8), np.int32)
    instances[2:5, 1:6] = 1
    return boxes_of(instances, 1)[0]


QUESTIONS = (
    Question(
        name="segmentation.1",
        right=lambda: _score(iou),
        because="3 pixels are in both masks, and 6 + 5 - 3 = 8 in at least one",
        wrong=(
            (lambda: _score(dice), "is Dice: twice the overlap, divided by the sum of the two areas"),
            (3 / 11, "counts the shared pixels twice in the union"),
            (3 / 6, "is the share of the truth that was found; what was found beside the truth costs nothing there"),
            (3 / 5, "is the share of the prediction that is right; what was missed costs nothing there"),
            (lambda: _overlaps()[0], "is the overlap itself, not yet divided by the union"),
        ),
        hint="Count the pixels that are in both masks, and those that are in at least one of them.",
    ),
    Question(
        name="segmentation.2",
        right=2 / 3,
        because="with an overlap of half the union, the two areas add up to 1.5 unions, and Dice is 2 * 0.5 / 1.5",
        wrong=(
            (0.5, "would mean that both measures are the same number; they are at 0 and at 1 only"),
            (1, "is twice the IoU; the two areas add up to more than the union, since the overlap is in both"),
            (1 / 3, "is the IoU of two masks whose Dice is 0.5; Dice is the larger of the two"),
        ),
        hint="Take masks whose union is 2 pixels and whose overlap is 1, and count.",
    ),
    Question(
        name="segmentation.3",
        right=(2, 3, 48, 64),
        because="pictures come first, then channels, one for each class, then rows, then columns",
        wrong=(
            ((2, 1, 48, 64), "has the one channel of the grey picture; going out, there is a channel for each class"),
            ((2, 3, 64, 48), "has the width before the height; rows come before columns"),
            ((2, 48, 64, 3), "has the channels last, as pictures in files have; in tinyseg they come second"),
            ((2, 48, 64), "is the shape of the masks, after the likeliest class of each pixel has been chosen"),
            ((3, 48, 64), "is the shape for one picture; here there are two at a time"),
        ),
        hint="The order is N, C, H, W: pictures, channels, height, width.",
    ),
    Question(
        name="segmentation.4",
        right=_box,
        because="x1 and y1 are where the first column and row begin, x2 and y2 where the last ones end",
        wrong=(
            ((1, 2, 5, 4), "ends where the last column and row begin; a pixel of column x covers x to x + 1"),
            ((2, 1, 5, 6), "has rows before columns; in a box x comes before y"),
            ((1, 2, 5, 3), "gives width and height after the corner, as COCO's files do"),
            ((2, 1, 4, 5), "has rows before columns, and ends where the last ones begin"),
        ),
        hint="The order is x1, y1, x2, y2, and a pixel has an area: where does the last column end?",
    ),
    Question(
        name="segmentation.5",
        right="instances",
        because="cells that touch have different numbers there, so the largest number is how many there are",
        wrong=(
            ("mask", "has class 1 for every cell: two cells that touch are one patch"),
            ("probability", "tells cell from background at each pixel, but no cell from another"),
        ),
        hint="Which of the arrays holds different numbers on two cells that touch?",
    ),
    Question(
        name="segmentation.6",
        right="never grows",
        because="a pixel whose probability reaches the higher threshold reaches the lower one as well",
        wrong=(
            ("never shrinks", "is what a lower threshold does: more pixels reach it"),
            ("may do either", "would need a pixel that reaches the higher threshold but not the lower one"),
        ),
        hint="Take one pixel of probability 0.7, and ask which thresholds it reaches.",
    ),
)
