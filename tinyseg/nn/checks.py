"""Checks of what layers are made with."""

import numpy as np


def pair(name, value, minimum):
    """Return an int or a pair (vertical, horizontal) as a pair."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in pair):
        raise TypeError(f"{name} is {value!r}; expected a whole number or a pair of them (vertical, horizontal)")
    if min(pair) < minimum:
        raise ValueError(f"{name} is {value!r}; expected at least {minimum}")
    return tuple(int(n) for n in pair)


def channels(name, value, groups=1):
    """Check a number of channels."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}; expected a whole number")
    if value < 1 or value % groups:
        raise ValueError(
            f"{name} is {value}; expected at least 1" + (f", a multiple of groups={groups}" * (groups > 1))
        )
    return int(value)
