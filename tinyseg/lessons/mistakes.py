"""Answers to the questions of notebook 10: what goes wrong, and what the library says about it."""

from tinyseg.lessons.question import Question

QUESTIONS = (
    Question(
        name="mistakes.1",
        right=0,
        because="an adaptive number of samples in a box without area is none, and the mean of none counts as 0",
        wrong=(
            (float("nan"), "is 0 / 0; the operator takes the mean of no samples to be 0"),
            (9, "is what a fixed number of samples reads in the middle of the ramp; an adaptive number is none here"),
            (1, "is the number of samples that sampling_ratio=1 would take along each axis"),
        ),
        hint="How many samples does an adaptive bin have that is 0 cells wide?",
    ),
    Question(
        name="mistakes.2",
        right=112,
        because="four poolings need a multiple of 2**4, which is 16, and 112 is the next after 100",
        wrong=(
            (100, "halves to 50, 25 and then 12.5"),
            (104, "is the next multiple of 8, which is enough for three poolings"),
            (128, "is the next power of two; a multiple of 16 is enough"),
            (96, "is smaller than the picture: a border would be lost"),
        ),
        hint="How often must the height be divisible by 2?",
    ),
    Question(
        name="mistakes.3",
        right=0.2,
        because="the gradient is added up twice, which is the same as a step twice as long",
        wrong=(
            (0.1, "would be so if backward() replaced the gradient; it adds to it"),
            (0.05, "is half as long; the gradient is twice as large"),
            (0.01, "is the learning rate squared"),
        ),
        hint="What is in the gradient after the second backward()?",
    ),
    Question(
        name="mistakes.4",
        right=4,
        because="the background is one of the five, and it is class 0",
        wrong=(
            (5, "counts the classes without the background, which is one of the five"),
            (3, "counts from 0 and takes the last one away"),
        ),
        hint="Classes count from 0. Which of them is no object?",
    ),
    Question(
        name="mistakes.5",
        right="logits",
        because="log(softmax) of raw scores can be computed without ever making a probability of 0",
        wrong=(
            ("clip", "comes too late: clipping NaN gives NaN"),
            ("float64", "only moves the place: a probability becomes 0 there as well, a little later"),
        ),
        hint="The logarithm of 0 is not finite. Where does the 0 come from, and must it be made at all?",
    ),
)
