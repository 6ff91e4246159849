"""Answers to the questions of notebook 4: U-Net."""

import numpy as np

from tinyseg import ops
from tinyseg.lessons.question import Question
from tinyseg.tensor import Tensor


def _loss(truth):
    """Return the loss of pixels that all have a probability of 0.8."""
    truth = Tensor(np.array(truth, np.float64))
    return ops.binary_cross_entropy(Tensor(np.full(truth.shape, 0.8)), truth).item()


def _field(*layers):
    """Return how many pixels wide the receptive field after layers of (kernel size, stride) is."""
    width = 1
    for kernel, stride in reversed(layers):
        width = (width - 1) * stride + kernel
    return width


_CONV, _POOL = (3, 1), (2, 2)

QUESTIONS = (
    Question(
        name="unet.1",
        right=(2, 256, 96 // 16, 160 // 16),
        because="there are five levels with four poolings between them, and each halves",
        wrong=(
            ((2, 256, 3, 5), "is halved five times; there are four poolings between five levels"),
            ((2, 256, 10, 6), "has columns before rows"),
            ((2, 128, 12, 20), "is the map one level higher"),
            ((1, 256, 6, 10), "is the shape for one picture"),
            ((2, 3, 6, 10), "keeps the picture's three channels; each level has its own number"),
        ),
        hint="How many poolings lie between the five levels? And how many channels does the last level have?",
    ),
    Question(
        name="unet.2",
        right=64,
        because="32 come from below, enlarged, and 32 from the skip connection",
        wrong=(
            (32, "is what comes from below; the copy from the way down is joined to it"),
            (96, "joins the lowest map's 64 channels; the transposed convolution has halved them"),
            (128, "joins 64 and 64; on this level each of the two has 32"),
        ),
        hint="Look at the printed shapes: level 3, joined.",
    ),
    Question(
        name="unet.3",
        right=lambda: _loss([1, 0]),
        because="it is the mean of -ln 0.8 and -ln 0.2",
        wrong=(
            (lambda: _loss([1]), "is the loss of the pixel of the cell alone"),
            (lambda: _loss([0]), "is the loss of the other pixel alone"),
            (lambda: 2 * _loss([1, 0]), "is the sum; the loss is the mean over the pixels"),
            (lambda: _loss([1, 0]) / np.log(10), "has the logarithm to base 10; here it is the natural one"),
        ),
        hint="Compute -ln p for the one and -ln (1 - p) for the other, and take the mean.",
    ),
    Question(
        name="unet.4",
        right=-(-100 // 16) * 16,
        because="four poolings halve four times, and 112 is the next multiple of 16",
        wrong=(
            (100, "is no multiple of 16: 100, 50, 25, and then a row is lost"),
            (96, "is the multiple of 16 below; rows are added, not cut off"),
            (104, "is a multiple of 8, which is enough for three poolings"),
            (128, "is a multiple of 32, as if there were five poolings, or a power of two; neither is needed"),
        ),
        hint="By which number must the rows be divisible, to be halved once for each pooling?",
    ),
    Question(
        name="unet.5",
        right=lambda: _field(_CONV, _POOL, _CONV, _POOL, _CONV),
        because="counted backwards: 3, doubled 6, with a convolution 8, doubled 16, with a convolution 18",
        wrong=(
            (lambda: _field(_CONV, _CONV, _CONV), "leaves out the poolings"),
            (lambda: _field(_CONV, (2, 1), _CONV, (2, 1), _CONV), "counts a pooling as one more pixel; it doubles"),
            (12, "leaves out the convolutions above the poolings"),
            (28, "is counted forwards, from the picture; begin with the last layer"),
        ),
        hint="Begin with one pixel after the last layer, and ask layer by layer what was needed to compute it.",
    ),
    Question(
        name="unet.6",
        right="it remembers instead of understanding",
        because="what it gains on pictures that it knows does not carry over to others, which is called overfitting",
        wrong=(
            ("it needs more steps", "would be so if the Dice of the held-out pictures were still rising"),
            ("the learning rate is too high", "would show in the loss of the batches too: it would not keep falling"),
        ),
        hint="On which pictures is the loss computed, and on which the Dice?",
    ),
)
