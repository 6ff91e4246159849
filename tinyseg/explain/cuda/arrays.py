"""Arrays that note every access, and the log of accesses, for `cuda_trace`."""

import dis
import functools
import operator
import sys
from array import array
from typing import Any, NamedTuple

import numpy as np

READ, WRITE, ATOMIC = range(3)
KINDS = ("read", "write", "atomic")

#: Numbers in the log for each access: site, thread of the grid, byte, order, hash of what was written, round of loops.
COLUMNS = 6
#: Bytes that a thread can ask for at once.
WIDEST = 16
#: The order of an access: how many barriers of the block its thread has passed, times this, plus those of its warp.
WARP_BARRIERS = 1 << 20


class TooMany(Exception):
    """The kernel made more accesses than were to be noted."""


class Memory:
    """What array elements lie in: an array of the caller's, one for each block in shared, for each thread in local.

    A shared array that is declared with an alignment has ``piece``: bytes that the compiler may read in one request.
    """

    def __init__(self, name, space, itemsize, piece=0):
        self.name, self.space, self.itemsize, self.piece = name, space, itemsize, min(piece or 0, WIDEST)


class Site(NamedTuple):
    """One subscript of the source, as one array is accessed by it."""

    file: str
    line: int
    column: int
    memory: Memory
    name: str
    kind: int


class Outside(NamedTuple):
    """An access beyond an array's end, or by an index below 0, which Numba counts from the end."""

    site: Site
    at: tuple
    shape: tuple
    block: tuple
    thread: tuple
    done: bool


class Unset(NamedTuple):
    """A read of shared or local memory that nothing was written to."""

    site: Site
    at: tuple
    block: tuple
    thread: tuple


class Log:
    """All accesses of a launch.

    Parameters
    ----------
    limit : int
        How many are noted before the launch is given up.
    """

    def __init__(self, limit):
        self.numbers = array("q")
        self.sites: list[Site] = []
        self.outside: list[Outside] = []
        self.unset: list[Unset] = []
        self.limit, self.left = limit, limit
        self.thread: Any = None  # the GpuThread that runs now
        self.kernel_code: Any = None
        self._known: dict = {}
        self._rounds: dict = {}

    def place(self, depth):
        """Return what stands for a place in the source: the instruction, and those that called its function."""
        frame = sys._getframe(depth + 1)
        place: tuple = frame.f_code, _instructions(frame.f_code)[frame.f_lasti // 2]
        while frame.f_code is not self.kernel_code and frame.f_back is not None:
            frame = frame.f_back
            place += frame.f_code, _instructions(frame.f_code)[frame.f_lasti // 2]
        return place

    def rounds(self, outer, number):
        """Return what stands for round ``number`` of a loop that is run in the rounds ``outer`` of those around it."""
        return self._rounds.setdefault((outer, number), len(self._rounds) + 1)

    def site(self, place, memory, name, kind):
        """Return the number of a site."""
        key = place, memory, name, kind
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self.sites)
            file, line, column = position(*place[:2])
            self.sites.append(Site(file, line, column, memory, name, kind))
        return number

    def access(self, site, byte, written):
        """Note an access by the thread that runs now."""
        self.left -= 1
        if self.left < 0:
            raise TooMany
        thread = self.thread
        self.numbers.extend((site, thread.number, byte, thread.order, written, thread.rounds))

    def table(self):
        """Return all accesses, one row each, in the order in which they ran."""
        return np.frombuffer(self.numbers, np.int64).reshape(-1, COLUMNS)


@functools.lru_cache(256)
def _instructions(code):
    """Return where the instruction begins that each word of a function's code belongs to.

    Python looks up what it has learnt about an instruction in words behind it, and ``f_lasti`` may then point there.
    """
    begins = {instruction.offset // 2 for instruction in dis.get_instructions(code)}
    owners, begin = [], 0
    for word in range(len(code.co_code) // 2):
        begin = word if word in begins else begin
        owners.append(2 * begin)
    return owners


@functools.lru_cache(4096)
def position(code, instruction):
    """Return file, line and column of an instruction. Columns are 0 before Python 3.11, which has none."""
    line, column = code.co_firstlineno, 0
    if hasattr(code, "co_positions"):
        places = list(code.co_positions())
        line, _, column, _ = places[min(instruction // 2, len(places) - 1)]
        return code.co_filename, line or code.co_firstlineno, column or 0
    for start, end, number in code.co_lines():
        if start <= instruction < end and number:
            line = number
    return code.co_filename, line, column


@functools.lru_cache(4096)
def assigned_name(code, instruction, otherwise):
    """Return the variable that the result of an instruction is stored in."""
    for following in dis.get_instructions(code):
        if following.offset > instruction:
            if following.opname in ("STORE_FAST", "STORE_DEREF", "STORE_NAME"):
                return following.argval
            if following.opname not in ("CACHE", "EXTENDED_ARG", "NOP"):
                break
    return otherwise


class TracedArray:
    """An array as a kernel sees it: elements by one index for each axis, parts by fewer indices or slices.

    Parameters
    ----------
    log : Log
        Where accesses are noted.
    memory : Memory
        What it lies in.
    values : ndarray
        Its elements.
    name : str
        What the kernel calls it.
    start : int
        The byte of the memory at which element 0 lies.
    filled : ndarray of bool or None
        Which elements were written to; None where all count as such.
    """

    __slots__ = ("_filled", "_log", "_memory", "_name", "_noted", "_start", "_values", "dtype", "shape")

    def __init__(self, log, memory, values, name, start=0, filled=None):
        self._log, self._memory, self._values, self._name = log, memory, values, name
        self._start, self._filled = start, filled
        self._noted = memory.space in ("global", "shared")
        self.shape, self.dtype = values.shape, values.dtype

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: self._values.size)
    strides = property(lambda self: self._values.strides)
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: self._values.nbytes)

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self):
        return f"<traced array {self._name}, shape {self.shape}, {self.dtype}>"

    def __getattr__(self, name):
        raise AttributeError(f"cuda_trace does not know {name!r} of the array {self._name!r}")

    def __iter__(self):
        raise TypeError(f"a kernel takes the elements of {self._name!r} by index, not one after the other")

    def __array__(self, *_, **__):
        raise TypeError(f"a kernel cannot compute with the whole array {self._name!r}, only with its elements")

    def __getitem__(self, index):
        index = self._whole(index)
        if index is None or len(index) < len(self.shape) or any(type(i) is slice for i in index):
            return self._part(index)
        found = self._find(index, READ)
        if found is None:
            return self.dtype.type(0)
        if self._filled is not None and not self._filled[found]:
            self._note_unset(index, 2)
        return self._values[found]

    def __setitem__(self, index, value):
        index = self._whole(index)
        if index is None or len(index) < len(self.shape) or any(type(i) is slice for i in index):
            raise TypeError(
                f"cuda_trace has no assignment to a part of {self._name!r}: assign to one element at a time"
            )
        found = self._find(index, WRITE, value)
        if found is not None and self._filled is not None:
            self._filled[found] = True

    def change(self, index, function):
        """Replace an element by ``function`` of it, atomically; return what it was."""
        index = self._whole(index)
        if index is None or len(index) != len(self.shape):
            raise TypeError(f"an atomic operation on {self._name!r} takes one index for each of its axes")
        found = self._find(index, ATOMIC, depth=3)
        if found is None:
            return self.dtype.type(0)
        if self._filled is not None and not self._filled[found]:
            self._note_unset(index, 3)
        old = self._values[found]
        self._store(found, function(int(old) if self.dtype.kind in "iu" else old))
        return old

    def _whole(self, index):
        """Return an index as a tuple of int and slices, None if there is something else in it."""
        if type(index) is int:
            return (index,)
        parts = index if isinstance(index, tuple) else (index,)
        if len(parts) > len(self.shape):
            raise TypeError(f"{self._name!r} has {len(self.shape)} axes, but is given {len(parts)} indices")
        if any(part is Ellipsis for part in parts):
            return None
        try:
            return tuple(part if type(part) is slice else operator.index(part) for part in parts)
        except TypeError:
            wrong = next(part for part in parts if type(part) is not slice and not hasattr(part, "__index__"))
            raise TypeError(
                f"an index of {self._name!r} is a {type(wrong).__name__}; expected a whole number"
            ) from None

    def _part(self, index):
        """Return some of the elements as an array of its own."""
        if index is None or any(type(i) is slice and i.step not in (None, 1) for i in index):
            raise TypeError(f"cuda_trace takes no steps and no '...' in slices of {self._name!r}")
        found = self._inside(tuple(0 if type(i) is slice else i for i in index), READ, 3, allow_empty=True)
        if found is None:
            found = (0,) * len(index)
        index = tuple(i if type(i) is slice else place for i, place in zip(index, found, strict=True))
        values = self._values[index]
        start = self._start + values.__array_interface__["data"][0] - self._values.__array_interface__["data"][0]
        filled = None if self._filled is None else self._filled[index]
        return TracedArray(self._log, self._memory, values, self._name, start, filled)

    def _find(self, index, kind, value=None, depth=2):
        """Check an index, store ``value`` there if it is a write, note the access; return the index, None if outside.

        ``depth`` tells how many calls up the kernel is.
        """
        log = self._log
        for place, size in zip(index, self.shape, strict=True):
            if not 0 <= place < size:
                index = self._inside(index, kind, depth + 1)
                if index is None:
                    return None
                break
        if kind == WRITE:
            self._store(index, value)
        if self._noted:
            byte = self._start
            for place, stride in zip(index, self._values.strides, strict=True):
                byte += place * stride
            written = hash(self._values[index]) if kind == WRITE else 0
            log.access(log.site(log.place(depth), self._memory, self._name, kind), byte, written)
        return index

    def _inside(self, index, kind, depth, allow_empty=False):
        """Return an index with those below 0 counted from the end, None if one is outside; note what was wrong."""
        shape = self.shape[: len(index)]
        if all(0 <= place < size or (allow_empty and place == 0) for place, size in zip(index, shape, strict=True)):
            return index
        done = all(-size <= place < size for place, size in zip(index, shape, strict=True))
        log = self._log
        site = log.sites[log.site(log.place(depth), self._memory, self._name, kind)]
        log.left -= 1
        if log.left < 0:
            raise TooMany
        log.outside.append(Outside(site, index, self.shape, log.thread.block, log.thread.index, done))
        return tuple(place % size for place, size in zip(index, shape, strict=True)) if done else None

    def _note_unset(self, index, depth):
        log = self._log
        site = log.sites[log.site(log.place(depth), self._memory, self._name, READ)]
        log.unset.append(Unset(site, index, log.thread.block, log.thread.index))

    def _store(self, index, value):
        """Store an element; whole numbers that are too large for its type lose their upper bits, as on the GPU."""
        try:
            self._values[index] = value
        except OverflowError:
            bits = 8 * self.dtype.itemsize
            unsigned = np.array(int(value) % (1 << bits), f"u{self.dtype.itemsize}")
            self._values[index] = unsigned.view(self.dtype) if self.dtype.kind == "i" else unsigned
        except ValueError:
            if not self._values.flags.writeable:
                raise TypeError(f"the kernel writes to {self._name!r}, which is read-only") from None
            raise
