"""What explanations print, columns of text; and what they keep, strict JSON."""

import json

import numpy as np


def side_by_side(lines, left=(), gap="  "):
    """Return rows of texts as lines, with columns side by side.

    Parameters
    ----------
    lines : sequence of sequence of str
        As many texts in each.
    left : collection of int
        Which columns stand to the left, as words do; numbers stand to the right.
    gap : str
        Between columns.

    Returns
    -------
    list of str
        Without spaces at their ends.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.ljust if i in left else str.rjust for i in range(len(widths))]
    return [
        gap.join(side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)).rstrip()
        for line in lines
    ]


def ruled(lines, left=(), sums=False):
    """Return a table as lines: the first row is its head, and above the last one is a rule too, where that has sums."""
    text = side_by_side(lines, left)
    rule = "-" * max(map(len, text))
    return [text[0], rule, *text[1:-1], rule, text[-1]] if sums else [text[0], rule, *text[1:]]


def strict_json(whole):
    """Return the text of a JSON object: arrays as lists, and null for what JSON has not, NaN and infinity."""
    return json.dumps(_strict(whole), indent=2, allow_nan=False) + "\n"


def _strict(value):
    if isinstance(value, np.ndarray | np.generic):
        finite = value.dtype.kind != "f" or np.isfinite(value).all()
        return (value if finite else np.where(np.isfinite(value), value, np.array(None))).tolist()
    if isinstance(value, dict):
        return {name: _strict(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
