"""What an index with arrays picks, as in ``a[numbers]`` or ``a[rows, columns]``: read, written, and added to.

Arrays stand for neighbouring axes, and an index has all of the others: then what it picks are rows of equal length, and
a number for each says where it begins. The host works these numbers out, since it has to check them anyway, and copies
them to the device once: a `Picks` serves any number of times.

A thread takes elements of a row, as its neighbours take their neighbours. Where a row is picked several times, one
thread adds up all that comes to an element of it, in the order of the index: the sums are those of ``numpy.add.at``,
the same in every run.
"""

import functools
import math
import operator

import numpy as np
from numba.types import boolean, int64

from kernels.cuda.array import DeviceArray, empty, to_device, to_host
from kernels.cuda.device import cuda, kernel
from kernels.cuda.strides import full, whole


def has_arrays(index):
    """Return whether an index holds arrays or lists, as opposed to numbers and slices."""
    return any(isinstance(part, list | np.ndarray | DeviceArray) for part in _parts(index))


class Picks:
    """An index with arrays, checked, for arrays of one shape.

    Parameters
    ----------
    shape : tuple of int
        Of the arrays to index.
    index : tuple, list, ndarray or DeviceArray
        Arrays of whole numbers, which broadcast, or of bools; numbers; and full slices or an ellipsis for other axes.
        All but these stand side by side. Arrays of the device are copied to the host.

    Attributes
    ----------
    shape : tuple of int
        Of what is picked.

    Raises
    ------
    TypeError
        If the index holds anything else.
    IndexError
        If a number is out of range, arrays do not fit each other or the array, or there are more than it has axes.
    """

    def __init__(self, shape, index):
        first, arrays = _arrays(shape, index)
        last = first + len(arrays)
        try:
            picked = np.broadcast_shapes(*(a.shape for a in arrays))
        except ValueError:
            shapes = " and ".join(str(a.shape) for a in arrays)
            raise IndexError(
                f"a device array is indexed by arrays of shapes {shapes}, which do not broadcast"
            ) from None
        self._of, self.shape = shape, (*shape[:first], *picked, *shape[last:])
        places: np.ndarray = np.zeros(picked, np.int64)
        for axis, numbers in enumerate(arrays, first):
            places = places * shape[axis] + _in_range(numbers, axis, shape[axis])
        places = places.reshape(-1)
        self._outer, self._rows, self._width = (math.prod(p) for p in (shape[:first], shape[first:last], shape[last:]))
        self._count, self._places = len(places), to_device(places)
        distinct = bool((places[1:] > places[:-1]).all()) or len(np.unique(places)) == len(places)
        self._repeated = None if distinct else _Repeated(places)

    def take(self, a):
        """Return a copy of what is picked out of an array."""
        self._check(a)
        y = empty(self.shape, a.dtype)
        rows = self._outer * self._count
        sizes = self._count, self._rows, self._width
        _take_kernel.over_rows(rows, self._width, y.raw, a.raw, self._places.raw, *sizes, rows)
        return y

    def put(self, a, values):
        """Write an array or number, which broadcasts, to what is picked; of what comes to one place the last stays."""
        values, places, count = self._spread(a, values), self._places, self._count
        if self._repeated is not None:
            places, last = self._repeated.last()
            count = len(places)
            values = Picks((self._outer, self._count, self._width), (slice(None), last)).take(
                values.reshape(self._outer, self._count, self._width)
            )
        rows = self._outer * count
        _put_kernel.over_rows(rows, self._width, a.raw, values.raw, places.raw, count, self._rows, self._width, rows)

    def add(self, a, values):
        """Add an array or number, which broadcasts, to what is picked; all that comes to one place, in order."""
        values, table, segments = self._spread(a, values), self._places, self._count
        if values.dtype != a.dtype:
            raise TypeError(f"add.at of device arrays of {a.dtype} and {values.dtype}; expected one type")
        if self._repeated is not None:
            table, segments = self._repeated.table, self._repeated.count
        rows = self._outer * segments
        sizes = segments, self._count, self._rows, self._width
        _add_kernel.over_rows(rows, self._width, a.raw, values.raw, table.raw, self._repeated is not None, *sizes, rows)

    def _spread(self, a, values):
        """Return values as an array of the shape of what is picked, which shares no memory with ``a``."""
        self._check(a)
        if isinstance(values, np.ndarray) and values.ndim:
            raise TypeError(
                f"a NumPy array of shape {values.shape} is written to a device array; "
                "copy it with kernels.cuda.to_device"
            )
        if not isinstance(values, DeviceArray):
            return full(self.shape, values, a.dtype)
        if values.shape != self.shape or values.raw is a.raw:
            return whole(values).repeated(self.shape).copied()
        return values

    def _check(self, a):
        """Refuse an array of another shape: numbers were checked against this one."""
        if a.shape != self._of:
            raise IndexError(f"an index for device arrays of shape {self._of} is used on one of shape {a.shape}")


class _Repeated:
    """Places of which some are named several times: each place once, and in which order what comes there is read."""

    def __init__(self, places):
        self._order = np.argsort(places, kind="stable")
        places = places[self._order]
        self._starts = np.flatnonzero(np.r_[True, places[1:] != places[:-1]])
        self._places, self.count = places[self._starts], len(self._starts)

    def last(self):
        """Return each place once, on the device, and which number of the index was the last to name it."""
        ends = np.r_[self._starts[1:], len(self._order)]
        return to_device(self._places), self._order[ends - 1]

    @functools.cached_property
    def table(self):
        """In one array, on the device: each place; the order of reading; where in it each place begins; its end."""
        return to_device(np.concatenate([self._places, self._order, self._starts, [len(self._order)]]))


# ---- reading an index ------------------------------------------------------------------------------------------------


def _parts(index):
    return index if isinstance(index, tuple) else (index,)


def _arrays(shape, index):
    """Return the first axis that arrays stand for, and an array of the host for it and for each that follows."""
    parts = [_part(part) for part in _parts(index)]
    taken = sum(_axes_of(part) for part in parts)
    if taken > len(shape):
        raise IndexError(f"{taken} indices for a device array of {len(shape)} axes")
    at = next((i for i, part in enumerate(parts) if part is ...), len(parts))
    parts = [*parts[:at], *[slice(None)] * (len(shape) - taken), *parts[at + 1 :]]
    by_axis: list = []
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype == np.bool_:
            axis = len(by_axis)
            if part.shape != shape[axis : axis + part.ndim]:
                raise IndexError(
                    f"a device array of shape {shape} is indexed by bools of shape {part.shape}, from axis {axis} on"
                )
            by_axis += part.nonzero()
        else:
            by_axis.append(part)
    where = [axis for axis, part in enumerate(by_axis) if isinstance(part, np.ndarray)]
    if not where:
        raise TypeError(f"a device array is indexed by {index!r}; expected arrays in it")
    if where != list(range(where[0], where[-1] + 1)):
        raise TypeError(f"a device array is indexed by arrays for axes {where}; expected neighbouring axes")
    return where[0], by_axis[where[0] : where[-1] + 1]


def _part(part):
    """Return part of an index: an array of the host, a full slice or an ellipsis."""
    if part is ... or (isinstance(part, slice) and part == slice(None)):
        return part
    if isinstance(part, slice | bool | np.bool_) or part is None:
        raise TypeError(f"a device array is indexed by arrays and {part!r}; expected full slices beside arrays")
    if not isinstance(part, list | np.ndarray | DeviceArray):
        return np.asarray(operator.index(part))
    a = to_host(part) if isinstance(part, DeviceArray) else np.asarray(part)
    if a.dtype.kind not in "iub":
        raise TypeError(f"a device array is indexed by an array of {a.dtype}; expected whole numbers or bools")
    return a


def _axes_of(part):
    """Return how many axes part of an index stands for."""
    if part is ...:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype == np.bool_ else 1


def _in_range(numbers, axis, size):
    """Return numbers of an axis, those from its end counted from its beginning."""
    numbers = numbers.astype(np.int64, copy=False)
    wrong = (numbers < -size) | (numbers >= size)
    if wrong.any():
        raise IndexError(f"index {numbers[wrong][0]} is out of range for axis {axis} of size {size}")
    return np.where(numbers < 0, numbers + size, numbers)


# ---- kernels: arrays are (outer, rows, width), what is picked (outer, picked, width) ---------------------------------


@kernel(lambda T: (T[::1], T[::1], int64[::1], int64, int64, int64, int64))
def _take_kernel(y, a, places, picked, rows, width, count):
    column, row = cuda.grid(2)
    across, down = cuda.gridsize(2)
    while row < count:
        start = (row // picked * rows + places[row % picked]) * width
        i = column
        while i < width:
            y[row * width + i] = a[start + i]
            i += across
        row += down


@kernel(lambda T: (T[::1], T[::1], int64[::1], int64, int64, int64, int64))
def _put_kernel(a, values, places, picked, rows, width, count):
    column, row = cuda.grid(2)
    across, down = cuda.gridsize(2)
    while row < count:
        start = (row // picked * rows + places[row % picked]) * width
        i = column
        while i < width:
            a[start + i] = values[row * width + i]
            i += across
        row += down


@kernel(lambda T: (T[::1], T[::1], int64[::1], boolean, int64, int64, int64, int64, int64))
def _add_kernel(a, values, table, repeated, segments, picked, rows, width, count):
    """Row ``row`` is segment ``row % segments``: a place, and all that comes there."""
    column, row = cuda.grid(2)
    across, down = cuda.gridsize(2)
    while row < count:
        outer, segment = row // segments, row % segments
        start, end = segment, segment + 1
        if repeated:
            start, end = table[segments + picked + segment], table[segments + picked + segment + 1]
        target, source = (outer * rows + table[segment]) * width, outer * picked * width
        i = column
        while i < width:
            total = a[target + i]
            for j in range(start, end):
                number = table[segments + j] if repeated else j
                total += values[source + number * width + i]
            a[target + i] = total
            i += across
        row += down
