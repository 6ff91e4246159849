"""The questions of the notebooks: every right answer is accepted, every wrong one refused with its own words."""

import re
from pathlib import Path

import numpy as np
import pytest

import tinyseg
from tinyseg import Tensor, lessons
from tinyseg.lessons import Question
from tinyseg.lessons.question import _value

ROOT = Path(__file__).parents[1]
QUESTIONS = [question for subject in lessons.subjects() for question in lessons.questions(subject)]
GARBAGE = (None, {}, {1, 2}, object(), lambda: 1, 1j, [[1, 2], [3]], [1, "two"], b"bytes", np.array([None]), print, "")

NUMBER = Question(
    name="x.1", right=lambda: 3 / 7, because="so it is", wrong=((0.3, "is a"), (0.6, "is b")), hint="Count."
)
BOX = Question(
    name="x.2",
    right=(1, 2, 6, 5),
    because="so it is",
    wrong=(((2, 1, 5, 6), "is a"), ((1, 2, 5, 4), "is b")),
    hint="H.",
)
WORD = Question(name="x.3", right="not more", because="so it is", wrong=(("more", "is a"), ("B", "is b")), hint="H.")
TRUTH = Question(name="x.4", right=True, because="so it is", wrong=((False, "is a"),), hint="H.")


@pytest.mark.parametrize("question", [*QUESTIONS, NUMBER, BOX, WORD], ids=lambda question: question.name)
def test_answers(question):
    right = _value(question.right)
    assert question.verdict(...) == "Not answered yet."
    assert question.verdict(right) == f"Right: {question.because}."
    said = set()
    for value, misconception in question.wrong:
        verdict = question.verdict(_value(value))
        assert verdict.startswith("Not yet: you wrote ")
        assert verdict.endswith(f", which {misconception}. {question.hint}")
        said.add(misconception)
    needed = 1 if isinstance(right, bool) else 2
    assert len(said) == len(question.wrong) >= needed
    for garbage in GARBAGE:
        verdict = question.verdict(garbage)
        assert re.fullmatch(r"Not yet: [^\n]+", verdict) and "which" not in verdict, verdict


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_words(question):
    clauses = [question.because, *(misconception for _, misconception in question.wrong)]
    for clause in clauses:
        assert clause and clause[-1] not in ".!?" and "\n" not in clause, clause
        assert "!" not in clause, clause
    assert question.hint[0].isupper() and question.hint[-1] in ".?" and "!" not in question.hint


def test_names_are_the_subject_and_a_number():
    assert lessons.subjects()
    for subject in lessons.subjects():
        names = [question.name for question in lessons.questions(subject)]
        assert names == [f"{subject}.{i}" for i in range(1, len(names) + 1)] and names


def test_each_question_is_asked_by_one_notebook():
    asked = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.py")):
        names = re.findall(r"lessons\.check\(\"([^\"]+)\"", path.read_text("utf-8"))
        assert len({name.split(".")[0] for name in names}) == 1, f"{path.name}: questions of one subject each"
        asked += names
    assert sorted(asked) == sorted(question.name for question in QUESTIONS)


@pytest.mark.parametrize(
    "answer", [0.429, 0.4286, np.float32(0.4286), np.array(0.4286), Tensor(np.array(0.4286)), "0.4286"], ids=repr
)
def test_numbers_of_any_kind(answer):
    verdict = NUMBER.verdict(answer)
    if isinstance(answer, str):
        assert verdict == "Not yet: a number is asked for, and you wrote a word."
    else:
        assert verdict == "Right: so it is."


def test_tolerance():
    assert NUMBER.verdict(0.43) == "Not yet: you wrote 0.43. Count."
    assert NUMBER.verdict(float("nan")) == "Not yet: you wrote nan. Count."
    assert NUMBER.verdict(True) == "Not yet: a number is asked for, and you wrote True or False."


@pytest.mark.parametrize(
    "answer", [(1, 2, 6, 5), [1, 2, 6, 5], np.array([1, 2, 6, 5]), Tensor(np.array([1.0, 2, 6, 5]))], ids=repr
)
def test_tuples_of_any_kind(answer):
    assert BOX.verdict(answer) == "Right: so it is."


def test_tuples_of_other_lengths():
    assert BOX.verdict((1, 2)) == "Not yet: a tuple of 4 numbers is asked for, and you wrote a tuple of 2 numbers."
    assert BOX.verdict(1) == "Not yet: a tuple of 4 numbers is asked for, and you wrote a number."
    assert BOX.verdict((1, 2, ..., ...)) == "Not answered yet."
    assert BOX.verdict(np.ones((2, 2))).endswith("and you wrote an array of numbers of shape (2, 2).")


def test_words_without_case_and_spaces():
    assert WORD.verdict("  Not   MORE ") == "Right: so it is."
    assert WORD.verdict("b") == "Not yet: you wrote b, which is b. H."
    assert WORD.verdict("less") == "Not yet: you wrote less; expected one of B, more, not more."
    assert WORD.verdict(3) == "Not yet: a word is asked for, and you wrote a number."


def test_truth_values():
    assert TRUTH.verdict(np.True_) == TRUTH.verdict(np.array(True)) == "Right: so it is."
    assert TRUTH.verdict(False) == "Not yet: you wrote False, which is a. H."
    assert TRUTH.verdict(1) == "Not yet: True or False is asked for, and you wrote a number."


def test_several_words_and_arrays():
    words = Question(name="x.5", right=("a", "b"), because="y", wrong=((("b", "a"), "is a"),), hint="H.")
    assert words.verdict(["A", " b"]) == words.verdict(np.array(["a", "B"])) == "Right: y."
    assert words.verdict(("b", "a")) == "Not yet: you wrote ('b', 'a'), which is a. H."
    grid = Question(name="x.6", right=lambda: np.eye(2), because="y", wrong=((np.ones((2, 2)), "is a"),), hint="H.")
    assert grid.verdict([[1, 0], [0, 1]]) == "Right: y."
    assert grid.verdict(np.ones((2, 2))) == "Not yet: you wrote [[1.0, 1.0], [1.0, 1.0]], which is a. H."
    assert grid.verdict([1, 0]).startswith("Not yet: an array of numbers of shape (2, 2) is asked for")


def test_check_prints_one_line(capsys):
    name = QUESTIONS[0].name
    tinyseg.lessons.check(name, ...)
    assert capsys.readouterr() == ("Not answered yet.\n", "")
    tinyseg.lessons.check(name, _value(QUESTIONS[0].right))
    assert capsys.readouterr() == (f"Right: {QUESTIONS[0].because}.\n", "")


def test_checking_draws_no_random_numbers():
    before = tinyseg.random.get_state()
    for question in QUESTIONS:
        question.verdict(0)
    assert tinyseg.random.get_state() == before


@pytest.mark.parametrize("name", ["nonsense.1", "segmentation", "segmentation.99", 1, "checking.1", ""])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r"name is .*; expected .*segmentation"):
        lessons.check(name, 1)


def test_unknown_subject():
    with pytest.raises(ValueError, match="subject is 'x'; expected one of .*segmentation"):
        lessons.questions("x")
