"""How kernels are compiled: one place for the flags, the disk cache and its fallback."""

import functools
import warnings

import numba

#: Relaxations that keep NaN and inf as they are. ``nnan`` and ``ninf``, which plain ``fastmath=True`` adds,
#: would let LLVM assume them away.
RELAXED = {"contract", "reassoc", "nsz"}


def jit(function=None, *, parallel=False, fastmath=False, inline="never"):
    """Compile a kernel at its first call, and keep the machine code on disk.

    Numba stores the code beside the source or, where that folder is read-only, in the user's cache folder. Where
    neither can be written, the kernel is compiled anew in each process: slower to start, otherwise the same.
    The cache does not notice an edit in another file that was compiled into a kernel: remove ``__pycache__`` then.

    Parameters
    ----------
    function : callable
        The kernel, with its output arrays first.
    parallel : bool
        Whether ``prange`` loops run on several threads.
    fastmath : bool or set of str
        LLVM's fast-math flags. ``RELAXED`` is the only set used here.
    inline : {"never", "always"}
        Whether the body is copied into its callers before type inference.

    Returns
    -------
    callable
        The compiled kernel; without ``function``, a decorator that takes it.

    Notes
    -----
    Two limits of Numba's threads hold for every parallel kernel. With the threading layer "workqueue" (where neither
    OpenMP nor TBB is found), two Python threads that call kernels at once end the process. With GNU OpenMP, a process
    forked after a kernel has run ends at its first own call: start processes by "spawn" or "forkserver". A disk that is
    full while code is stored is an OSError.
    """
    if function is None:
        return functools.partial(jit, parallel=parallel, fastmath=fastmath, inline=inline)
    options = {
        "parallel": parallel,
        "fastmath": fastmath,
        "inline": inline,
        "error_model": "numpy",
        "nogil": True,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", numba.NumbaWarning)
            return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in
        return numba.njit(**options)(function)
