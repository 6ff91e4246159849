"""The one source of chance for initialisers and the like."""

import numpy as np

_state = {"generator": np.random.default_rng()}


def manual_seed(seed):
    """Start the random numbers of tinyseg (initial weights) from a seed: the same seed, the same numbers.

    Parameters
    ----------
    seed : int
        At least 0.

    Returns
    -------
    numpy.random.Generator
        The generator from now on.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is {seed!r}; expected a whole number of at least 0")
    _state["generator"] = np.random.default_rng(seed)
    return _state["generator"]


def generator():
    """Return the generator that tinyseg draws from."""
    return _state["generator"]


def get_state():
    """Return the state of the generator: a plain dictionary that can be stored as JSON."""
    return _state["generator"].bit_generator.state


def set_state(state):
    """Put the generator into a state that ``get_state`` returned.

    Parameters
    ----------
    state : dict
        What ``get_state`` returned, here or in another process.
    """
    _state["generator"].bit_generator.state = state
