"""Finding a question by its name, and saying whether an answer is right."""

import pkgutil
from importlib import import_module
from pathlib import Path

#: Files of this package that hold no questions.
_MACHINERY = {"checking", "question"}


def check(name, answer):
    """Print whether an answer is right, in one or two short sentences.

    The answer is a number, a truth value, a word (upper and lower case and spaces do not matter), or a list, tuple,
    array or Tensor of numbers or words, as the question asks. Numbers may be off by the question's tolerance.

    Parameters
    ----------
    name : str
        Of the question: ``"segmentation.1"`` is the first of ``tinyseg/lessons/segmentation.py``.
    answer : object
        What the reader wrote; ``...`` (Ellipsis) where there is no answer yet.

    Returns
    -------
    None
        The verdict is printed: a cell that ends with this call shows nothing else.

    Raises
    ------
    ValueError
        If there is no question of that name.

    Examples
    --------
    >>> import tinyseg
    >>> tinyseg.lessons.check("segmentation.1", ...)
    Not answered yet.
    """
    print(_find(name).verdict(answer))


def subjects():
    """Return the subjects that have questions, by name.

    Returns
    -------
    tuple of str
        One for each notebook: ``"segmentation"``, ...
    """
    folder = Path(__file__).parent
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if module.name not in _MACHINERY))


def questions(subject):
    """Return the questions of a subject, in the order in which its notebook asks them.

    Parameters
    ----------
    subject : str
        One of `subjects`.

    Returns
    -------
    tuple of Question

    Raises
    ------
    ValueError
        If there is no such subject.
    """
    if subject not in subjects():
        raise ValueError(f"subject is {subject!r}; expected one of {', '.join(subjects())}")
    return import_module(f"tinyseg.lessons.{subject}").QUESTIONS


def _find(name):
    """Return the question of that name."""
    subject = name.rpartition(".")[0] if isinstance(name, str) else None
    if subject not in subjects():
        raise ValueError(f"name is {name!r}; expected a subject and a number, one of {', '.join(subjects())}")
    by_name = {question.name: question for question in questions(subject)}
    if name not in by_name:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(by_name)}")
    return by_name[name]
