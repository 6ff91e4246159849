"""Answers to the questions of notebook 2: convolution, forward and backward."""

import numpy as np

from tinyseg import ops
from tinyseg.lessons.question import Question
from tinyseg.tensor import Tensor

#: The weights of question 2, which have no symmetry, and its picture.
WEIGHT = ((1, 0, 2), (0, -1, 0), (0, 3, 1))
RAMP = np.arange(16.0).reshape(4, 4)


def _convolved(weight=WEIGHT, picture=RAMP, **options):
    """Return the output for a picture and weights of one channel."""
    x, table = (Tensor(np.array(a, np.float64)[None, None]) for a in (picture, weight))
    return ops.conv2d(x, table, **options).numpy()[0, 0]


def _flipped(table):
    """Return a table after half a turn."""
    return np.array(table)[::-1, ::-1].copy()


def _gradients(picture, weight, dy, **options):
    """Return the gradients of picture and weights."""
    x, table = (Tensor(np.array(a, np.float64)[None, None], requires_grad=True) for a in (picture, weight))
    ops.conv2d(x, table, **options).backward(np.array(dy, np.float64)[None, None])
    assert x.grad is not None and table.grad is not None  # for the type checker
    return x.grad.numpy()[0, 0], table.grad.numpy()[0, 0]


def _middle(weight):
    """Return the gradient of the middle pixel in question 4."""
    return _gradients(np.zeros((3, 3)), weight, ((1, 0), (0, 2)))[0][1, 1]


def _of_weights(**options):
    """Return the gradient of the weights in question 5."""
    side = 2 if options else 4
    dy = np.zeros((side, side))
    dy[:2, :2] = (1, 10), (100, 1000)
    return _gradients(np.arange(25.0).reshape(5, 5), np.zeros((2, 2)), dy, **options)[1]


def _learned(groups):
    """Return how many numbers the layer of question 3 learns: weights (O, C / groups, kH, kW), and biases."""
    return 24 * (12 // groups) * 3 * 3 + 24


QUESTIONS = (
    Question(
        name="convolution.1",
        right=lambda: ops.conv2d(np.zeros((1, 1, 32, 32)), np.zeros((1, 1, 5, 5)), stride=2, padding=2).shape[2],
        because="(32 + 4 - 5) / 2 is 15.5, rounded down to 15 steps after the first window",
        wrong=(
            (32, "is the size with a stride of 1"),
            (15, "leaves out the first window, or the padding on one of the two sides"),
            (14, "leaves out the padding"),
            (16.5, "has half a window; a step that leads out of the picture is not taken"),
            (17, "rounds up; a step that leads out of the picture is not taken"),
        ),
        hint="Count the rows with their padding, take away those of one window, divide by the stride, and round down.",
    ),
    Question(
        name="convolution.2",
        right=lambda: _convolved(padding=1)[1, 0],
        because="2 * 1 - 1 * 4 + 3 * 8 + 1 * 9 is 31; the left column of the weights lies on zeros",
        wrong=(
            (
                lambda: _convolved(_flipped(WEIGHT), padding=1)[1, 0],
                "turns the weights by half a turn; conv2d does not",
            ),
            (lambda: _convolved(padding=1)[0, 1], "is the output in row 0 and column 1; the row comes first"),
            (lambda: _convolved()[1, 0], "is the output in that place without padding"),
            (
                lambda: _convolved(padding=1)[1, 1],
                "has the corner of its window, not its middle, in row 1 and column 0",
            ),
        ),
        hint="The middle of the weights lies on the pixel in row 1 and column 0, which is 4.",
    ),
    Question(
        name="convolution.3",
        right=lambda: _learned(3),
        because="each of 24 output channels has 4 tables of 9 weights, and a bias",
        wrong=(
            (lambda: _learned(1), "is the number without groups: each output channel reads 12 / 3 channels only"),
            (lambda: _learned(3) - 24, "leaves out the bias, one number for each output channel"),
            (8 * 4 * 9 + 24, "has weights for 8 output channels; the groups share out the 24, and all 24 are there"),
            (lambda: _learned(3) - 12, "has a bias for each input channel; it belongs to the output channels"),
        ),
        hint="How many input channels does one output channel read?",
    ),
    Question(
        name="convolution.4",
        right=lambda: _middle(((1, 2), (3, 4))),
        because="the first output read it with its last weight, 4 * 1, and the last output with its first, 1 * 2",
        wrong=(
            (lambda: _middle(_flipped(((1, 2), (3, 4)))), "has each weight at the wrong output: the flip is missing"),
            (lambda: _middle(((1, 2), (3, 4))) / 4, "is divided by the number of windows; what they send adds up"),
            (lambda: _middle(((1, 2), (3, 4))) / 2, "is a mean; what the windows send adds up"),
            (2, "is what the last window sent: = in place of +="),
            (4, "is what the first window sent; the last one sends something as well"),
        ),
        hint="Lay the table on the first and on the last window. Which weight lies on the middle each time?",
    ),
    Question(
        name="convolution.5",
        right=lambda: _of_weights(stride=2)[0, 1],
        because="it met the pixels 1, 3, 11 and 13: 1 + 30 + 1100 + 13000",
        wrong=(
            (lambda: _of_weights()[0, 1], "has windows that are one pixel apart; the stride is 2"),
            (lambda: _of_weights(stride=2)[1, 0], "is the gradient of weight[1, 0]; the row comes first"),
            (lambda: _of_weights(stride=2)[0, 0], "is the gradient of weight[0, 0]"),
        ),
        hint="Write down the corner of each of the four windows, and the pixel that lies one column to its right.",
    ),
    Question(
        name="convolution.6",
        right="a missing flip",
        because="a table of equal weights is the same after half a turn, and the two other mistakes change the sums",
        wrong=(
            ("= in place of +=", "shows wherever windows overlap: all but one contribution are missing"),
            ("a mean over windows", "shows wherever windows overlap: the sum is divided by their number"),
        ),
        hint="What does each of the mistakes make of dx where two windows overlap?",
    ),
)
