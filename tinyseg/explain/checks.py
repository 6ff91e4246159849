"""What explanations are given: numbers, sizes and networks. Whatever else comes ends in one sentence that names it."""

import numpy as np

from tinyseg.backend import checked_arguments, moved
from tinyseg.nn import Module
from tinyseg.tensor import array_of


def network(model):
    """Return a network after checking that it is one."""
    if not isinstance(model, Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TypeError(f"model is {what}; expected a Module")
    return model


def whole(name, value, least=0):
    """Return a whole number of at least ``least``."""
    return checked_arguments("integer", name, value, least)


def above_zero(name, value):
    """Return a finite number above 0 as a float."""
    number = checked_arguments("number", name, value)
    if number <= 0:
        raise ValueError(f"{name} is {value!r}; expected a number above 0")
    return number


def not_below_zero(name, value):
    """Return a finite number of at least 0 as a float."""
    return checked_arguments("number", name, value, 0)


def wholes(name, value, words, count=None):
    """Return whole numbers, ``count`` of them where that is given, as a tuple; ``words`` says what was expected."""
    try:
        numbers = tuple(checked_arguments("integer", name, number) for number in value)
    except TypeError:
        numbers = None
    if numbers is None or count not in (None, len(numbers)):
        raise TypeError(f"{name} is {value!r}; expected {words}")
    return numbers


def several(name, value, words):
    """Return a list of what is given; ``words`` says what was expected."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} is {value!r}; expected {words}")
    return list(value)


def peaks(given):
    """Return what a machine can do, as floats: ``flops`` and ``bytes`` a second."""
    if not isinstance(given, dict) or not {"flops", "bytes"} <= set(given):
        raise ValueError(f"peaks is {given!r}; expected a dict with flops and bytes per second")
    return {name: above_zero(f"peaks[{name!r}]", given[name]) for name in ("flops", "bytes")}


def numbers(name, values, kinds):
    """Return numbers as an array of the host."""
    try:
        array = np.asarray(moved(array_of(values), "cpu"))
    except ValueError:  # lists of different lengths
        raise ValueError(f"{name} has rows of different lengths; expected the same number in each") from None
    if array.dtype.kind not in kinds or array.dtype.itemsize not in (1, 2, 4, 8):
        raise TypeError(f"{name} has dtype {array.dtype}; expected numbers")
    return array
