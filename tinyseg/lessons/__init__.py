"""The questions at the ends of the notebooks: right answers, what each wrong one shows, and hints.

A notebook asks in a markdown cell and checks in a code cell, which a reader fills in; three dots mean not answered
yet, so that the notebook runs from top to bottom:

    answer = ...
    tinyseg.lessons.check("segmentation.1", answer)

The answers are in one file per notebook, ``tinyseg/lessons/SUBJECT.py``, as a tuple ``QUESTIONS`` of `Question`; its
names are ``SUBJECT.1``, ``SUBJECT.2``, ... in the order in which the notebook asks. A new file needs no registration:

    from tinyseg.lessons.question import Question

    QUESTIONS = (
        Question(
            name="segmentation.1",
            right=lambda: overlap(A, B),  # a value, or a function without arguments that computes it
            because="3 pixels are in both masks, and 7 in either",
            wrong=(
                (3 / 10, "counts the shared pixels twice in the union"),
                (0.6, "is Dice: twice the overlap, by the sum of the areas"),
            ),
            hint="Count the pixels that are in at least one of the masks.",
        ),
    )

`Question` says what the parts are and how they are put into words. ``tests/test_lessons.py`` proves for each question
that its right answer is accepted, that each wrong one is refused with its own words, and that exactly one notebook
asks it.
"""

from tinyseg.lessons.checking import check, questions, subjects
from tinyseg.lessons.question import Question

__all__ = ["Question", "check", "questions", "subjects"]
