"""Which kernels compute, on how many threads, in what memory. The only file of tinyseg that imports ``kernels``."""

import os
import sys
from importlib import import_module
from typing import Any

_state: dict[str, Any] = {"backend": None, "threads": None}


def _kernels():
    module = import_module("kernels")
    if not hasattr(module, "CONTRACT"):
        raise ImportError(
            f"the package 'kernels' at {getattr(module, '__file__', None) or list(module.__path__)} is not tinyseg's: "
            "uninstall it ('pip uninstall kernels'), then reinstall tinyseg, or put tinyseg's folder first on the path"
        )
    return module


class use_backend:  # a verb, as a call and as a context manager
    """Choose the kernels: as a call, or for the length of a ``with`` block.

    The environment variable ``TINYSEG_BACKEND`` gives the choice at start; without it, it is ``"cpu"``.

    Parameters
    ----------
    name : {"naive", "cpu"}
        ``"naive"``: textbook loops, slow and easy to follow. ``"cpu"``: the fast kernels.

    Raises
    ------
    ValueError
        If there is no such backend.

    Examples
    --------
    >>> import tinyseg
    >>> with tinyseg.use_backend("naive"):
    ...     tinyseg.current_backend()
    'naive'
    """

    def __init__(self, name):
        self._previous = _state["backend"]
        _kernels().get(name)
        _state["backend"] = name

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        _state["backend"] = self._previous


def current_backend():
    """Return the name of the backend in use."""
    if _state["backend"] is None:
        name = os.environ.get("TINYSEG_BACKEND") or "cpu"
        try:
            _kernels().get(name)
        except ValueError as error:
            raise ValueError(f"environment variable TINYSEG_BACKEND: {error}") from None
        _state["backend"] = name
    return _state["backend"]


def kernel(name):
    """Return a function of the kernel contract from the backend in use.

    Parameters
    ----------
    name : str
        The function's name, such as ``"conv2d_forward"``.

    Returns
    -------
    callable
        Takes and returns NumPy arrays; see ``kernels``.
    """
    if _state["threads"] is None:
        set_num_threads()
    return getattr(_kernels().get(current_backend()), name)


def has_kernel(name):
    """Return whether the backend in use has a function: all have those of the contract, some have fused ones as well.

    Parameters
    ----------
    name : str
        The function's name, such as ``"batch_norm_relu_forward"``.

    Returns
    -------
    bool
    """
    return _kernels().has(current_backend(), name)


def set_num_threads(threads=None):
    """Set how many threads the kernels use.

    Numba keeps the number per Python thread: kernels called from another Python thread use its default. The results
    are the same, bit for bit, whatever the number.

    Parameters
    ----------
    threads : int, optional
        From 1 to the number of processors. Without it, the environment variable ``TINYSEG_NUM_THREADS``, or else
        Numba's choice (one per processor, or ``NUMBA_NUM_THREADS``).

    Raises
    ------
    ValueError
        If the number is not one that this machine has.
    """
    import numba  # half a second: not at import of tinyseg

    limit = numba.config.NUMBA_NUM_THREADS
    source = "threads"
    if threads is None:
        text = os.environ.get("TINYSEG_NUM_THREADS")
        if not text:
            _state["threads"] = numba.get_num_threads()
            return
        source = "environment variable TINYSEG_NUM_THREADS"
        threads = int(text) if text.isdecimal() else text
    if not isinstance(threads, int) or not 1 <= threads <= limit:
        raise ValueError(f"{source} is {threads!r}; expected a whole number from 1 to {limit} (what this machine has)")
    numba.set_num_threads(threads)
    _state["threads"] = threads


def get_num_threads():
    """Return how many threads the kernels use."""
    if _state["threads"] is None:
        set_num_threads()
    return _state["threads"]


def release_memory():
    """Give the memory that the kernels keep for their next results back to the system.

    The ``"cpu"`` kernels use the memory of results that are gone again: hardly more than was in use at once. Worth a
    call where a program goes on to something else that needs much memory.
    """
    memory = sys.modules.get("kernels.cpu.memory")
    if memory is not None:  # otherwise no kernel has run
        memory.release()


def peak_memory():
    """Return the most memory that this process has had in use so far.

    Returns
    -------
    float or None
        In MiB, of all that was resident at once. None on Windows, where Python has no name for it.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
