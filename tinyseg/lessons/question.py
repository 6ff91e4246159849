"""What a question is, and how an answer to it is judged."""

from dataclasses import dataclass
from numbers import Number

import numpy as np

from tinyseg.tensor import Tensor


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question of a notebook, without its text, which stands in the notebook.

    Parameters
    ----------
    name : str
        ``"SUBJECT.NUMBER"``.
    right : object or callable
        The right answer, or a function without arguments that computes it, which is called when an answer is checked.
        Its kind is the kind of answer that is asked for: a bool; a number; a str, which makes the question one of
        choices, namely this and the wrong ones; or a tuple, list, array or Tensor of numbers or of str.
    because : str
        Why it is right, as a clause: printed as ``"Right: 3 pixels are in both masks, and 7 in either."``
    wrong : tuple of (object or callable, str)
        Plausible wrong answers, each with the misconception that it shows, as a clause that follows "which":
        ``(0.6, "is Dice: ...")`` is printed as ``"Not yet: you wrote 0.6, which is Dice: ..."``, with the hint behind.
        At least two; none within the tolerance of the right answer or of another. For a bool, the other value.
    hint : str
        What to do next, in whole sentences; printed after any wrong answer. It does not give the answer.
    tolerance : float
        How far each number may be from the right one; 0.001 lets answers be given to three decimals.
    """

    name: str
    right: object
    because: str
    wrong: tuple
    hint: str
    tolerance: float = 1e-3

    def verdict(self, answer):
        """Return what is said about an answer.

        Parameters
        ----------
        answer : object
            Anything; ``...`` where there is no answer yet.

        Returns
        -------
        str
            One line, two sentences at most and the hint.
        """
        answer = answer.numpy() if isinstance(answer, Tensor) else answer
        if answer is ... or isinstance(answer, list | tuple) and any(part is ... for part in answer):
            return "Not answered yet."
        wanted = _plain(_value(self.right))
        try:
            given = _plain(answer)
        except TypeError:
            return f"Not yet: {_asked_for(wanted)} is asked for, and you wrote {_kind(answer)}."
        if self._same(given, wanted):
            return f"Right: {self.because}."
        for value, misconception in self.wrong:
            if self._same(given, _plain(_value(value))):
                return f"Not yet: you wrote {_shown(answer)}, which {misconception}. {self.hint}"
        if given.dtype.kind != wanted.dtype.kind or given.shape != wanted.shape:
            return f"Not yet: {_asked_for(wanted)} is asked for, and you wrote {_asked_for(given)}."
        choices = self.choices()
        if choices and given.item() not in map(_folded, choices):
            return f"Not yet: you wrote {_shown(answer)}; expected one of {', '.join(choices)}."
        return f"Not yet: you wrote {_shown(answer)}. {self.hint}"

    def choices(self):
        """Return the words to choose from, sorted; empty where the answer is no single word.

        Returns
        -------
        tuple of str
        """
        right = _value(self.right)
        if not isinstance(right, str):
            return ()
        return tuple(sorted({right, *(_value(value) for value, _ in self.wrong)}))

    def _same(self, given, wanted):
        """Whether two plain arrays are the same answer."""
        if given.shape != wanted.shape or given.dtype.kind != wanted.dtype.kind:
            return False
        if wanted.dtype.kind == "f":
            return np.allclose(given, wanted, rtol=0, atol=self.tolerance, equal_nan=True)
        return bool(np.all(given == wanted))


def _value(value):
    """Return a value that may have to be computed."""
    return value() if callable(value) else value


def _plain(answer):
    """Return an answer as an array of float64, of bool or of words without case and spaces; TypeError if it is none."""
    if isinstance(answer, Tensor):
        answer = answer.numpy()
    if isinstance(answer, str):
        return np.array(_folded(answer))
    if not isinstance(answer, Number | np.generic | np.ndarray | list | tuple):
        raise TypeError
    try:
        array = np.array([_plain(part) for part in answer] if isinstance(answer, list | tuple) else answer)
    except ValueError:  # a ragged list
        raise TypeError from None
    if array.dtype.kind in "iuf":
        return array.astype(np.float64)
    if array.dtype.kind == "U":
        return array if isinstance(answer, list | tuple) else np.vectorize(_folded, otypes=[str])(array)
    if array.dtype.kind == "b":
        return array
    raise TypeError


def _folded(word):
    """Return a word without what does not matter: case, and how many spaces."""
    return " ".join(word.casefold().split())


def _asked_for(plain):
    """Return what kind of answer a plain array is, in words."""
    single, several = {"f": ("a number", "numbers"), "b": ("True or False", "truth values"), "U": ("a word", "words")}[
        plain.dtype.kind
    ]
    if plain.ndim == 0:
        return single
    if plain.ndim == 1:
        return f"a tuple of {plain.size} {several}"
    return f"an array of {several} of shape {plain.shape}"


def _kind(answer):
    """Return what an answer is that is none of these, in words."""
    return "None" if answer is None else f"something else ({type(answer).__name__})"


def _shown(answer):
    """Return an answer as it is repeated to whoever wrote it: on one line, and short."""
    if isinstance(answer, np.generic):
        answer = answer.item()
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    text = " ".join((answer if isinstance(answer, str) else str(answer)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
