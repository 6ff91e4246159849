"""How kernels are compiled: one place for the flags, the disk cache and its fallback."""

import functools
import hashlib
import warnings
from pathlib import Path

import numba

#: Relaxations that keep NaN and inf as they are. ``nnan`` and ``ninf``, which plain ``fastmath=True`` adds,
#: would let LLVM assume them away.
RELAXED = {"contract", "reassoc", "nsz"}


def jit(function=None, *, parallel=False, fastmath=False, inline="never"):
    """Compile a kernel at its first call, and keep the machine code on disk.

    Numba stores the code beside the source or, where that folder is read-only, in the user's cache folder. Where
    neither can be written, the kernel is compiled anew in each process: slower to start, otherwise the same.
    It is compiled anew, too, after an edit in any file of its folder, or where bounds are checked and were not before.

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


def _watch_folders():
    """Make the disk cache notice an edit in any file of a kernel's folder, and whether bounds are checked.

    Numba looks at the kernel's own file alone, but what is in another may have been compiled into the kernel: half old
    and half new, it reads beyond its arrays.
    """
    try:
        from numba.core.caching import _SourceFileBackedLocatorMixin as Locator

        stamp_of_file = Locator.get_source_stamp
    except (ImportError, AttributeError):  # a Numba that goes about it differently
        return
    here = Path(__file__).parent

    def get_source_stamp(self):
        stamp, folder = stamp_of_file(self), Path(self._py_file).parent
        if not folder.is_relative_to(here):
            return stamp
        return stamp, _digest(folder), _digest(here), bool(numba.config.BOUNDSCHECK)

    Locator.get_source_stamp = get_source_stamp


@functools.cache
def _digest(folder):
    """Return a number for the contents of all Python files of a folder."""
    contents = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        contents.update(path.name.encode() + path.read_bytes())
    return contents.hexdigest()


_watch_folders()
