"""Answers to the questions of notebook 3: transposed convolution, pooling, upsampling and batch normalisation."""

import numpy as np

from tinyseg import ops
from tinyseg.lessons.question import Question
from tinyseg.tensor import Tensor


def _enlarged_size(**options):
    """Return how many rows the transposed convolution of question 1 makes of ten."""
    return ops.conv_transpose2d(np.zeros((1, 1, 10, 10)), np.zeros((1, 1, 3, 3)), stride=2, **options).shape[2]


def _stamped():
    """Return the output of question 2."""
    x = np.array([[1.0, 2.0], [3.0, 4.0]])[None, None]
    return ops.conv_transpose2d(Tensor(x), Tensor(np.ones((1, 1, 3, 3))), stride=2).numpy()[0, 0]


def _pooled_gradient():
    """Return the gradient of question 3."""
    x = Tensor(np.array([[[[2.0, 5.0, 5.0, 1.0, 7.0]]]]), requires_grad=True)
    ops.max_pool2d(x, (1, 3), stride=1).backward(np.array([[[[1.0, 10.0, 100.0]]]]))
    assert x.grad is not None  # for the type checker
    return x.grad.numpy().ravel()


def _resized(**options):
    """Return the third of the four numbers of question 4."""
    return ops.interpolate(Tensor(np.array([[[[0.0, 8.0]]]])), size=(1, 4), **options).numpy().ravel()[2]


def _running_variance():
    """Return the running variance of question 5."""
    mean, variance = Tensor(np.zeros(1)), Tensor(np.ones(1))
    ops.batch_norm(Tensor(np.array([[[[2.0, 4.0, 6.0]]]])), mean, variance, training=True)
    return variance.numpy()[0]


QUESTIONS = (
    Question(
        name="pooling.1",
        right=lambda: _enlarged_size(padding=1),
        because="the last stamp starts at row 18 and has 3 rows, which makes 21, and one is cropped from each side",
        wrong=(
            (lambda: _enlarged_size(padding=1, output_padding=1), "is twice ten; that takes an output_padding of 1"),
            (lambda: _enlarged_size(), "leaves out the padding, which crops here"),
            (lambda: _enlarged_size() + 2, "adds the padding; in a transposed convolution it crops"),
            (5, "is what the convolution with these settings makes of ten rows"),
        ),
        hint="At which row does the last of the ten stamps start, and where does it end?",
    ),
    Question(
        name="pooling.2",
        right=lambda: _stamped()[1, 2],
        because="the stamps of 1 and of 2 overlap there",
        wrong=(
            (lambda: _stamped()[2, 1], "is the value in row 2 and column 1; the row comes first"),
            (2, "is the stamp of the second pixel alone; overlapping stamps add up"),
            (1, "is the stamp of the first pixel alone; overlapping stamps add up"),
            (lambda: _stamped()[2, 2], "is the value in row 2 and column 2, where all four stamps overlap"),
        ),
        hint="Which rows and columns does each of the four stamps cover? They start two pixels apart.",
    ),
    Question(
        name="pooling.3",
        right=_pooled_gradient,
        because="the first 5 wins two windows, 1 + 10, and the 7 wins the third",
        wrong=(
            ((0, 10, 0, 0, 100), "keeps the last contribution only: = in place of +="),
            ((0, 0, 11, 0, 100), "gives a tie to the last of the two; the first wins"),
            ((0, 5.5, 5.5, 0, 100), "shares out the gradient of a tie; the first takes all of it"),
            ((0, 1, 10, 0, 100), "gives the tie in the second window to the second 5; the first is in it as well"),
            ((5, 5, 7), "is the output of the pooling; the gradient has a number for each number of x"),
        ),
        hint="Write down the three windows. In which place of x does the largest value of each stand?",
    ),
    Question(
        name="pooling.4",
        right=lambda: _resized(mode="bilinear"),
        because="its middle lies at (2 + 0.5) / 2 - 0.5 = 0.75 of the way from the first pixel to the second",
        wrong=(
            (lambda: _resized(mode="bilinear", align_corners=True), "has the centres of the corner pixels in place"),
            (lambda: _resized(), "is the nearest pixel's value"),
            (4, "lies half-way; the third of four pixels is nearer to the second of two"),
        ),
        hint="Draw two squares, and below them four of half the width. Where is the middle of the third?",
    ),
    Question(
        name="pooling.5",
        right=_running_variance,
        because="the squared distances add up to 8, which makes 8 / 2 = 4, and 0.9 * 1 + 0.1 * 4 is 1.3",
        wrong=(
            (0.9 + 0.1 * 8 / 3, "takes the biased variance, which normalises the batch; the running one is unbiased"),
            (0.1 + 0.9 * 4, "gives the batch nine tenths; it has one tenth"),
            (4, "is the variance of the batch; the running one moves a tenth of the way to it"),
            (0.4, "forgets what is left of the old value: nine tenths of 1"),
        ),
        hint="First the sum of the squared distances from the mean, then divide it, then mix with the old value.",
    ),
    Question(
        name="pooling.6",
        right=False,
        because="in evaluation the mean is a constant, which nothing that comes in can move",
        wrong=((True, "holds in training, where the mean that is subtracted contains the bias"),),
        hint="What is subtracted in evaluation, and does it depend on the bias?",
    ),
)
