"""Do the arrays of a file fit a network? If not, say which one does not, and which name was probably meant."""

import difflib

from .descriptions import shown

_MOST_CANDIDATES = 5000


def match(state, expected_shapes, source="the weights", strict=True):
    """Check that there is an array of the right shape for every name.

    Parameters
    ----------
    state : dict of str to array_like
        Arrays, or tensors with a ``shape``, by name.
    expected_shapes : dict of str to tuple of int
        The shape that each name must have.
    source : str
        Where ``state`` comes from, such as the path of a file; it opens the message.
    strict : bool
        Whether a name in ``state`` that nobody expects is an error too. If False, such names are left out.

    Returns
    -------
    dict of str to array_like
        The items of ``state`` in the order of ``expected_shapes``.

    Raises
    ------
    ValueError
        If a name is missing, not expected, or of another shape. The message names the first such, the nearest name that
        is there in its stead, and how many more there are.

    Examples
    --------
    >>> import numpy as np
    >>> match({"conv.wieght": np.zeros(8)}, {"conv.weight": (8,)}, "unet.pth", strict=False)
    Traceback (most recent call last):
    ...
    ValueError: unet.pth: 'conv.weight' is missing; the nearest name there is 'conv.wieght' (in all 1 missing)
    """
    missing = [name for name in expected_shapes if name not in state]
    unexpected = [name for name in state if name not in expected_shapes] if strict else []
    misshapen = [
        name for name, shape in expected_shapes.items() if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    if not missing and not unexpected and not misshapen:
        return {name: state[name] for name in expected_shapes}
    if missing:
        problem = f"{shown(missing[0])} is missing"
        # a name that is itself expected belongs to another parameter
        problem += _suggestion(missing[0], [name for name in state if name not in expected_shapes], "there")
    elif misshapen:
        name = misshapen[0]
        problem = f"{shown(name)} has shape {tuple(state[name].shape)}; expected {tuple(expected_shapes[name])}"
    else:
        problem = f"{shown(unexpected[0])} is not expected"
        problem += _suggestion(unexpected[0], list(expected_shapes), "expected")
    counts = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    total = ", ".join(f"{len(names)} {what}" for what, names in counts if names)
    raise ValueError(f"{source}: {problem} (in all {total})")


def _suggestion(name, candidates, where):
    """Return the end of a sentence that names the candidate nearest to ``name``, if one is near at all."""
    # bounded, since names from a file may be of any length and number
    short = {candidate[:200]: candidate for candidate in candidates[:_MOST_CANDIDATES]}
    near = difflib.get_close_matches(name[:200], short, n=1, cutoff=0.6)
    if not near:  # a prefix such as 'module.' of the whole network, longer than a short name
        near = [part for part in short if part.endswith(f".{name}") or name.endswith(f".{part}")][:1]
    return f"; the nearest name {where} is {shown(short[near[0]])}" if near else ""
