"""Memory for results, used again when the last view of a result is gone.

The operating system hands out fresh memory page by page, and clears each page at its first use: filling a new array of
64 MB takes three to five times as long as filling an old one. So large arrays are cut from one long stretch of address
space that stays. Each takes the lowest gap that is large enough, and a gap that an array leaves joins its neighbours.
A network that computes the same shapes again and again soon needs no fresh page, and the pages ever touched are hardly
more than what was in use at once.

Address space costs nothing until it is touched. Where the system will not reserve it (Windows, or a limit on a
process's memory), and where it is full, NumPy's own memory takes its place.
"""

import contextlib
import ctypes
import mmap
import os
import sys
import threading
import time
from bisect import bisect
from collections import deque
from typing import Any

import numpy as np

#: Bytes below which NumPy's own memory does as well: it comes from a heap, which keeps it.
SMALL = 1 << 18
#: Arrays begin at multiples of this many bytes: a cache line, and the longest vector.
ALIGNMENT = 64
#: Seconds after which memory that was not used goes back to the system, when the pool is next asked.
PATIENCE = 60.0
#: Whether pages that were given back are zeros when they are next used. Other systems may leave what was there.
_CLEARS = sys.platform == "linux"


class _Lease:
    """Shows a piece of memory to NumPy as an array. The array and all its views keep the lease alive.

    A view of a view refers to the first array and not to the one between; but NumPy never looks past an object that is
    no array, and this is one.
    """

    __slots__ = ("__array_interface__", "_piece", "_pool")

    def __init__(self, pool, piece, address, shape, dtype):
        self._pool, self._piece = pool, piece
        data = address, False  # not read-only
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": data}

    def __del__(self):
        self._pool.take_back(self._piece)


class Pool:
    """One stretch of address space, from which arrays are cut.

    Parameters
    ----------
    capacity : int
        Its length in bytes. It is reserved when the first large array is asked for.

    Attributes
    ----------
    lent : int
        Bytes in use by arrays.
    touched : int
        Bytes from the start on that may take up memory.
    """

    def __init__(self, capacity):
        self.lent = self.touched = 0
        self.lock = threading.Lock()
        self._capacity = capacity
        self._space: Any = None  # the address space, and where it starts
        self._address = 0
        # (start, end) of each gap, the lowest first. Ctrl-C may come between any two lines below: each change is one
        # assignment, so that the worst it leaves is a piece that nobody has
        self._gaps: list[tuple] = []
        self._returned: deque[tuple] = deque()  # pieces whose array has died, not yet gaps
        self._reach = 0  # the highest byte in use since the last look at the clock, and when that was
        self._looked_at = 0.0

    def empty(self, shape, dtype, cleared=False):
        """Return an array of any content, or ``cleared``, of zeros; see `empty` and `zeros`."""
        shape, dtype = tuple(shape), np.dtype(dtype)
        size = dtype.itemsize
        for length in shape:
            size *= length
        start = None if size < SMALL else self._lend(size + -size % ALIGNMENT, cleared)
        if start is None:
            return (np.zeros if cleared else np.empty)(shape, dtype)
        piece = start, start + size + -size % ALIGNMENT
        return np.asarray(_Lease(self, piece, self._address + start, shape, dtype))

    def take_back(self, piece):
        """Make a gap of the memory of an array that has died.

        Arrays may die anywhere, even amid the methods of this class when a garbage collection happens there: where the
        pool is busy, the piece is only noted.
        """
        self._returned.append(piece)
        if self.lock.acquire(blocking=False):
            try:
                self._join_returned()
            finally:
                self.lock.release()

    def release(self):
        """Give the memory of all gaps back to the system."""
        with self.lock:
            self._join_returned()
            for start, end in self._gaps:
                self._discard(start, min(end, self.touched))
            self.touched = self._reach = self._end_of_use()

    def _lend(self, size, cleared=False):
        """Return where a piece of ``size`` bytes starts; None if there is no gap for it."""
        if cleared and not _CLEARS:
            return None
        with self.lock:
            if self._space is None and self._capacity:
                self._reserve()
            self._join_returned()
            found = next((i for i, (start, end) in enumerate(self._gaps) if end - start >= size), None)
            if found is None:
                return None
            start, end = self._gaps[found]
            self._gaps[found : found + 1] = [(start + size, end)] if start + size < end else []
            if cleared:
                self._clear(start, start + size)
            self.lent += size
            self._reach = max(self._reach, start + size)
            self.touched = max(self.touched, self._reach)
            return start

    def _reserve(self):
        """Reserve the address space; where that fails, do without."""
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
            self._space = mmap.mmap(-1, self._capacity, flags)
        except (AttributeError, OSError, ValueError, OverflowError):
            self._capacity = 0
            return
        if hasattr(mmap, "MADV_HUGEPAGE"):  # fewer, larger pages, as NumPy asks for
            with contextlib.suppress(OSError):  # a kernel without them
                self._space.madvise(mmap.MADV_HUGEPAGE)
        self._address, _ = np.frombuffer(self._space, np.uint8).__array_interface__["data"]
        self._gaps = [(0, self._capacity)]

    def _join_returned(self):
        """Make gaps of what came back; from time to time, give back what lies above all that was used lately."""
        while self._returned:
            start, end = self._returned.popleft()
            self.lent -= end - start
            first = after = bisect(self._gaps, (start,))
            if first and self._gaps[first - 1][1] == start:
                first -= 1
                start = self._gaps[first][0]
            if after < len(self._gaps) and self._gaps[after][0] == end:
                end = self._gaps[after][1]
                after += 1
            self._gaps[first:after] = [(start, end)]
        now = time.monotonic()
        if now > self._looked_at + PATIENCE:
            self._looked_at = now
            self._discard(self._reach, self.touched)
            self.touched, self._reach = self._reach, self._end_of_use()

    def _end_of_use(self):
        """Return the end of the highest piece in use."""
        start, end = self._gaps[-1] if self._gaps else (0, 0)
        return start if end == self._capacity else self._capacity

    def _clear(self, start, end):
        """Make zeros of all from ``start`` to ``end``: of whole pages by giving them back."""
        end = min(end, self.touched)
        first, last = start + -start % mmap.PAGESIZE, end - end % mmap.PAGESIZE
        self._discard(start, end)
        for begin, stop in ((start, min(first, end)), (max(last, start), end)):
            if begin < stop:
                ctypes.memset(self._address + begin, 0, stop - begin)

    def _discard(self, start, end):
        """Let the system have the whole pages from ``start`` to ``end``."""
        start, end = start + -start % mmap.PAGESIZE, end - end % mmap.PAGESIZE
        if start < end:
            self._space.madvise(mmap.MADV_DONTNEED if _CLEARS else mmap.MADV_FREE, start, end - start)


def _physical_memory():
    """Return the size of the machine's memory in bytes; 0 where it is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return 0


_pool = Pool(_physical_memory())


def empty(shape, dtype):
    """Return an array of any content, whose memory is used again after the last view of it has died.

    Parameters
    ----------
    shape : sequence of int
        Length of each axis.
    dtype : dtype
        Type of numbers.

    Returns
    -------
    ndarray
        C-contiguous and writable. It may not own its memory (``flags.owndata``), otherwise it is like any array.
    """
    return _pool.empty(shape, dtype)


def zeros(shape, dtype):
    """Return an array of zeros, as `empty` does, for results of which only a part is ever written.

    Like ``np.zeros`` it takes up memory page by page, as it is used; idle memory where it lies goes back.
    """
    return _pool.empty(shape, dtype, cleared=True)


def empty_like(a):
    """Return an array of any content with the shape and the type of ``a``; see `empty`."""
    return _pool.empty(a.shape, a.dtype)


def release():
    """Give the memory that waits for its next use back to the system."""
    _pool.release()


def _after_fork():
    """Replace the lock in a child process: a thread that held it may exist in the parent only."""
    _pool.lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
