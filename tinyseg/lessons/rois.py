"""Answers to the questions of notebook 6: RoIPool against RoIAlign."""

import numpy as np

from tinyseg.lessons.question import Question


def _align(aligned):
    """Return the number at the top left of question 2, with either convention."""
    from tinyseg import ops
    from tinyseg.tensor import Tensor

    ramp = Tensor(np.arange(25.0).reshape(1, 1, 5, 5))
    box = np.array([[0, 1, 1, 3, 3.0]])
    return ops.roi_align(ramp, box, 4, sampling_ratio=1, aligned=aligned).numpy()[0, 0, 0, 0]


QUESTIONS = (
    Question(
        name="rois.1",
        right=1,
        because="10.5 / 16 is 0.66, which rounds to 1: the first cell of the map is not even looked at",
        wrong=(
            (
                0,
                "is the cell that the edge of the box lies in; RoIPool rounds to the nearest, it does not cut off",
            ),
            (10.5 / 16, "is the coordinate in cells before it is rounded"),
            (11, "is rounded before it is multiplied with spatial_scale; first scale, then round"),
            (2, "counts the cells from 1"),
        ),
        hint="Multiply with spatial_scale, then round to the nearest whole cell.",
    ),
    Question(
        name="rois.2",
        right=lambda: _align(True),
        because="the bin's middle is at 1.25, which is index 0.75 along both axes, and 5 * 0.75 + 0.75 is 4.5",
        wrong=(
            (lambda: _align(False), "is what comes out without aligned: the half cell is still to be subtracted"),
            (
                6,
                "is the cell in row 1 and column 1; the sample lies a quarter beyond the corner and half a cell back",
            ),
            (3, "is the value at the corner of the box, half a cell back; the sample lies in the middle of the bin"),
        ),
        hint="A bin is half a cell wide here. Where is the middle of the first one, and where after subtracting 0.5?",
    ),
    Question(
        name="rois.3",
        right=2,
        because="the first bin goes to ceil(2.5), so over cells 0 to 2, and the second begins at floor(2.5), cell 2",
        wrong=(
            (
                (2, 3),
                "would need a first bin that ends with cell 3; its end, ceil(2.5), is the first that it does not have",
            ),
            ((), "would be so if bins did not reach out to whole cells at both ends"),
            (3, "is in the second bin alone: the first one ends before it"),
            (2.5, "is the place where the bins would meet if cells could be cut"),
        ),
        hint="Bin p goes from floor(p * 5 / 2) to ceil((p + 1) * 5 / 2), the end not included.",
    ),
    Question(
        name="rois.4",
        right=16,
        because="half a cell of 32 pixels is 16 pixels, for every box",
        wrong=(
            (0.5, "is in cells; a cell is 32 pixels wide here"),
            (32, "is a whole cell; the two forms differ by half of one"),
            (8, "is half a cell at stride 16"),
            (0, "would mean that the two forms look at the same place"),
        ),
        hint="By how many cells do the two forms differ? How many pixels is a cell?",
    ),
    Question(
        name="rois.5",
        right=3,
        because="a bin is 20.5 / 7 = 2.93 cells wide, rounded up",
        wrong=(
            (2, "is rounded down; it is rounded up, so that no cell is left out"),
            (1, "is what sampling_ratio=1 takes; 0 or less means as many as the bin has cells"),
            (21, "is for the whole box; the question is about one bin"),
            (20.5 / 7, "is the width of a bin in cells; samples are counted in whole numbers"),
            (9, "is for the bin in both directions"),
        ),
        hint="How many cells wide is a bin? Round up.",
    ),
    Question(
        name="rois.6",
        right="neither",
        because="both take boxes as constants, and proposals are detached before they come here",
        wrong=(
            (
                "RoIAlign",
                "could give one, as its output glides with the box, but it does not: nobody uses it in these networks",
            ),
            ("RoIPool", "has an output that stays or jumps when the box moves: its derivative is 0 or does not exist"),
            ("both", "takes what flows to the features for what flows to the boxes"),
        ),
        hint="Look at the arguments of roi_pool_backward and roi_align_backward: what do they return?",
    ),
)
