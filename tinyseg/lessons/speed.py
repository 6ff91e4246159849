"""Answers to the questions of notebook 8: from a textbook loop to a fast kernel."""

from tinyseg.lessons.question import Question

QUESTIONS = (
    Question(
        name="speed.1",
        right=128 * 56 * 56 * 64 * 9,
        because="128 x 56 x 56 outputs are each a sum of 64 x 9 products",
        wrong=(
            (
                2 * 128 * 56 * 56 * 64 * 9,
                "is the number of operations: a multiply-add is one multiplication and one addition",
            ),
            (128 * 56 * 56 * 9, "leaves out that each output sums over 64 channels"),
            (128 * 56 * 56 * 64, "leaves out the 9 weights of each kernel"),
            (56 * 56 * 64 * 9, "is the work for one of the 128 output channels"),
            (128 * 64 * 9, "is the number of weights; each is used at every place of the map"),
        ),
        hint="Count the outputs, then the products in each of them.",
    ),
    Question(
        name="speed.2",
        right=80,
        because="20 GB a second times 4 operations a byte is 80, and the multipliers could do more",
        wrong=(
            (200, "is the flat part of the roof; at 4 operations a byte memory does not deliver enough for it"),
            (5, "is bytes a second divided by operations a byte; each byte brings 4 operations, so multiply"),
            (10, "is where the two limits meet, in operations per byte"),
            (
                50,
                "is what the multipliers do, divided by the operations per byte; take the smaller of two rates",
            ),
        ),
        hint="How many operations come with the bytes of one second? And how many can the multipliers do?",
    ),
    Question(
        name="speed.3",
        right=1,
        because="at 0.125 operations per byte memory is the limit, and the bytes are the same as before",
        wrong=(
            (2, "would need a layer that waits for its multipliers; this one waits for memory"),
            (8, "is the number of bytes for each operation"),
            (0.125, "is the arithmetic intensity, not a gain"),
        ),
        hint="Look where 0.125 lies on the roofline. Which limit is the lower one there?",
    ),
    Question(
        name="speed.4",
        right=36 / 16,
        because="36 multiplications give 16 outputs",
        wrong=(
            (36, "is what a whole patch takes, with its 16 outputs"),
            (4, "is how many times fewer they are: 9 / 2.25"),
            (1 / 4, "is the share of the textbook's multiplications that is left"),
            (6, "is the number of multiplications along one axis, for 4 outputs"),
        ),
        hint="A patch has 4 x 4 outputs. How many multiplications does the whole patch take?",
    ),
    Question(
        name="speed.5",
        right="sums",
        because="each lane of a vector keeps the sum of another pixel, and none of them needs another's result",
        wrong=(
            ("threads", "comes with rung 3; rung 2 runs on one core"),
            ("cache", "is not what changed: both rungs read every pixel for every output channel and weight"),
        ),
        hint="A vector instruction handles several numbers at once. Which, if each sum is added up in order?",
    ),
)
