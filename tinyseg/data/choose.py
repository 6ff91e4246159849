"""Choosing items of a data set by their names, and dividing them."""

import fnmatch
import re
from pathlib import Path

import numpy as np


def natural_key(name):
    """Return a key that sorts ``slice2`` before ``slice10``."""
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name) if part
    ]


def some(names, most=5):
    """Return the first few names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def select(names, pattern):
    """Return which names a pattern chooses.

    A pattern is a list, separated by commas, of

    - names (``07``),
    - globs (``slice_*``, ``0?``, ``[a-f]*``),
    - ranges of the number at the end of a name, both ends included (``00-15``, ``slice_3-slice_9``, ``slice_3-9``);
      zeros in front do not matter,
    - text files (``@held_out.txt``): a name a line, with or without the file's ending; empty lines and those that
      begin with ``#`` do not count.

    Parameters
    ----------
    names : sequence of str
        What to choose from.
    pattern : str
        As above.

    Returns
    -------
    list of int
        Indices, rising.

    Raises
    ------
    ValueError
        If a part of the pattern, or a line of a file, chooses nothing.
    OSError
        If a file of names cannot be read.
    """
    chosen: set[int] = set()
    for part in (part.strip() for part in pattern.split(",")):
        found = [i for i, name in enumerate(names) if name == part]
        found = found or [i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, part)]
        found = found or _in_range(names, part)
        if not found and part.startswith("@"):
            found = _listed(names, part[1:])
        if not found:
            raise ValueError(
                f"{part!r} chooses none of {len(names)} pictures ({some(names)}); expected names, "
                "globs such as 'a*', ranges such as '00-15', or files such as '@names.txt', separated by commas"
            )
        chosen.update(found)
    return sorted(chosen)


def _in_range(names, part):
    """Return the indices of names whose last number lies in a range such as ``slice_3-9``."""
    match = re.fullmatch(r"(.*?)(\d+)-(.*?)(\d+)", part)
    if not match or match[3] not in ("", match[1]):
        return []
    low, high = int(match[2]), int(match[4])
    ends = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    return [i for i, end in enumerate(ends) if end and end[1] == match[1] and low <= int(end[2]) <= high]


def _listed(names, path):
    """Return the indices of the names that a text file lists."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file; expected a name a line") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; expected a file of names, one a line") from None
    wanted = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    index = {name: i for i, name in enumerate(names)}
    found = [index.get(name, index.get(Path(name).stem)) for name in wanted]
    missing = [name for name, i in zip(wanted, found, strict=True) if i is None]
    if missing:
        raise ValueError(f"{path} lists {some(missing)}; expected names of the {len(names)} pictures ({some(names)})")
    if not wanted:
        raise ValueError(f"{path} lists no names; expected one a line")
    return found


def split(names, train=None, val=None, fraction=0.2, seed=0):
    """Divide items into those to train on and those to validate on.

    Parameters
    ----------
    names : sequence of str
        Names of all items.
    train, val : str, optional
        Patterns, as for `select`. With one of them, the other gets the rest.
    fraction : float
        Without patterns: which part of the items, chosen at random by ``seed``, is for validation; rounded, but at
        least one. 0 is none.
    seed : int
        Of that choice.

    Returns
    -------
    train, val : list of int
        Indices, rising; together all items, unless both patterns are given.

    Raises
    ------
    ValueError
        If a pattern chooses nothing, an item is in both, or nothing is left to train on.
    """
    everything = range(len(names))
    if train is None and val is None:
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction is {fraction!r}; expected 0 or more, and less than 1")
        count = max(1, round(fraction * len(names))) if fraction else 0
        held = set(np.random.default_rng(seed).permutation(len(names))[:count].tolist())
        chosen = [i for i in everything if i not in held], sorted(held)
    elif val is None:
        first = select(names, train)
        chosen = first, [i for i in everything if i not in set(first)]
    elif train is None:
        second = select(names, val)
        chosen = [i for i in everything if i not in set(second)], second
    else:
        chosen = select(names, train), select(names, val)
    both = sorted(set(chosen[0]) & set(chosen[1]))
    if both:
        raise ValueError(f"{some(names[i] for i in both)} would be trained on and validated on; expected no overlap")
    if not chosen[0]:
        raise ValueError(f"none of {len(names)} pictures is left to train on")
    return chosen
