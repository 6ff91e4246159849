"""Operations on each element, over arrays that are seen in steps: repeated, turned, cut out or reversed.

A `View` says where in an array's memory the element at an index lies: at ``start`` plus the sum of each index times
its axis's step. A step of 0 repeats; swapped steps transpose; a negative one reverses. Nothing is copied to make one.

An operation goes through all its views at once. Neighbouring axes that every view walks in one stride count as one,
which leaves most calls a single line: element i lies at i times a step. Otherwise a thread divides the number of its
element by the sizes, axis by axis, to find its place in each view; these numbers are of 32 bits, since a GPU divides
them several times faster, and larger arrays are gone through in parts. Neighbouring threads write neighbours.
"""

import itertools
import math
from typing import Any, NamedTuple

from numba.types import UniTuple, boolean, int32, int64, uint32

from kernels.cuda.array import DeviceArray, empty
from kernels.cuda.device import Kernel, cuda, device_function, kernel

#: Axes that a kernel takes, after some have become one; elements, and the distance between them, that it counts.
_AXES, _MOST = 6, 1 << 30


class View(NamedTuple):
    """Elements of a device array.

    Attributes
    ----------
    array : DeviceArray
        Whose memory they lie in.
    shape : tuple of int
        How many there are along each axis.
    steps : tuple of int
        How far each lies from the one before it along each axis, in elements.
    start : int
        Where the first one lies.
    """

    array: DeviceArray
    shape: tuple
    steps: tuple
    start: int = 0

    def repeated(self, shape):
        """Return the view broadcast to another shape."""
        shape = tuple(shape)
        return View(self.array, shape, _repeated(self.shape, self.steps, shape), self.start)

    def turned(self, axes):
        """Return the view with its axes in another order."""
        shape, steps = (tuple(part[axis] for axis in axes) for part in (self.shape, self.steps))
        return View(self.array, shape, steps, self.start)

    def copied(self, dtype=None):
        """Return the elements as an array of their own, of another type if one is given."""
        y = empty(self.shape, self.array.dtype if dtype is None else dtype)
        COPY(whole(y), self)
        return y


def whole(a):
    """Return the view of all of a device array."""
    return View(a, a.shape, steps_of(a.shape))


def steps_of(shape, repeated_to=None):
    """Return the steps of an array of that shape, where it is broadcast to another one if that is given."""
    steps = tuple(itertools.accumulate(shape[:0:-1], lambda step, size: step * size, initial=1))[::-1] if shape else ()
    return steps if repeated_to is None else _repeated(shape, steps, repeated_to)


def _repeated(own, steps, shape):
    """Return the steps of a view of shape ``own`` that is broadcast to ``shape``."""
    missing = len(shape) - len(own)
    sizes = (1,) * missing + tuple(own)
    if missing < 0 or any(size not in (1, want) for size, want in zip(sizes, shape, strict=True)):
        raise ValueError(f"a device array of shape {own} does not broadcast to {shape}")
    return tuple(0 if size == 1 else step for size, step in zip(sizes, (0,) * missing + steps, strict=True))


class Elementwise:
    """An operation on each element of one or two arrays, for views of any shape.

    Parameters
    ----------
    name : str
        Of the operation.
    function : callable
        Takes an element of each array, in plain Python that compiles for a GPU.
    inputs : int
        How many arrays it takes.
    decides : bool
        Whether what it returns is a bool.
    """

    def __init__(self, name, function, inputs, decides=False):
        function = device_function(function)
        axes = UniTuple(int64, _AXES)

        def line_types(T):
            types = ((boolean if decides else T)[::1], *(T[::1],) * inputs)
            return (*(part for array in types for part in (array, int64, int64)), int64)

        def grid_types(T):
            types = ((boolean if decides else T)[::1], *(T[::1],) * inputs)
            return (*(part for array in types for part in (array, int64, axes)), axes, int64)

        line, grid = (_line_of_one, _grid_of_one) if inputs == 1 else (_line_of_two, _grid_of_two)
        source = line(function), grid(function)
        self._line = Kernel(lambda T: source[0], line_types, f"strides.{name}_line")
        self._grid = Kernel(lambda T: source[1], grid_types, f"strides.{name}_grid")

    def __call__(self, y, *views):
        """Write to view ``y`` the result for each element of the others, which have its shape."""
        if not math.prod(y.shape):
            return
        views = (y, *views)
        arrays = [view.array.raw for view in views]
        sizes, steps = joined(y.shape, [view.steps for view in views])
        if len(sizes) <= 1:
            count, steps = (sizes[0], [s[0] for s in steps]) if sizes else (1, [1] * len(views))
            starts = [view.start for view in views]
            self._line.over(count, *_flat(zip(arrays, starts, steps, strict=True)), count)
            return
        for starts, part, part_steps in _parts([view.start for view in views], sizes, steps):
            missing = _AXES - len(part)
            padded = [(0,) * missing + s for s in part_steps]
            count = math.prod(part)
            sources = _flat(zip(arrays, starts, padded, strict=True))
            self._grid.over(count, *sources, (1,) * missing + part, count)


def _flat(groups):
    return itertools.chain.from_iterable(groups)


def joined(shape, steps):
    """Return sizes, and steps of each view, where axes that all views walk in one stride are one."""
    sizes: list[int] = []
    joined: list[list[int]] = [[] for _ in steps]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        here = [own[axis] for own in steps]
        if sizes and all(own[-1] == step * size for own, step in zip(joined, here, strict=True)):
            sizes[-1] *= size
            for own, step in zip(joined, here, strict=True):
                own[-1] = step
        else:
            sizes.append(size)
            for own, step in zip(joined, here, strict=True):
                own.append(step)
    return tuple(sizes), [tuple(own) for own in joined]


def _parts(starts, sizes, steps):
    """Yield starts, sizes and steps of parts that a kernel can count."""
    lengths = [max((size - 1) * abs(own[axis]) for own in steps) for axis, size in enumerate(sizes)]
    reach = max(sum((n - 1) * abs(step) for n, step in zip(sizes, own, strict=True)) for own in steps)
    if len(sizes) > _AXES:  # the first axis is gone through here
        for i in range(sizes[0]):
            moved = [start + i * own[0] for start, own in zip(starts, steps, strict=True)]
            yield from _parts(moved, sizes[1:], [own[1:] for own in steps])
    elif max(reach, math.prod(sizes)) < _MOST:
        yield starts, sizes, steps
    else:  # the axis that reaches farthest is cut in two
        axis = lengths.index(max(lengths))
        half = sizes[axis] // 2
        for first, size in ((0, half), (half, sizes[axis] - half)):
            moved = [start + first * own[axis] for start, own in zip(starts, steps, strict=True)]
            yield from _parts(moved, (*sizes[:axis], size, *sizes[axis + 1 :]), steps)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@device_function
def _place(i, sizes, steps):
    """Return how far from its start a view has its element number ``i``."""
    at = int32(0)
    for axis in range(_AXES - 1, -1, -1):
        size = uint32(sizes[axis])
        rest = uint32(i // size)
        at += int32(i - rest * size) * int32(steps[axis])
        i = rest
    return at


def _line_of_one(function):
    def line(y, y_start, y_step, a, a_start, a_step, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            y[y_start + i * y_step] = function(a[a_start + i * a_step])

    return line


def _line_of_two(function):
    def line(y, y_start, y_step, a, a_start, a_step, b, b_start, b_step, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            y[y_start + i * y_step] = function(a[a_start + i * a_step], b[b_start + i * b_step])

    return line


def _grid_of_one(function):
    def grid(y, y_start, y_steps, a, a_start, a_steps, sizes, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            number = uint32(i)
            y[y_start + _place(number, sizes, y_steps)] = function(a[a_start + _place(number, sizes, a_steps)])

    return grid


def _grid_of_two(function):
    def grid(y, y_start, y_steps, a, a_start, a_steps, b, b_start, b_steps, sizes, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            number = uint32(i)
            left, right = a[a_start + _place(number, sizes, a_steps)], b[b_start + _place(number, sizes, b_steps)]
            y[y_start + _place(number, sizes, y_steps)] = function(left, right)

    return grid


def _same(a):
    return a


COPY = Elementwise("copy", _same, 1)


def full(shape, value, dtype):
    """Return a device array that holds one number everywhere.

    Parameters
    ----------
    shape : sequence of int
        Its shape.
    value : number
        Goes to the kernel with its launch: no transfer.
    dtype : dtype
        Its type.

    Returns
    -------
    DeviceArray
    """
    y = empty(shape, dtype)
    number: Any = y.dtype.type(value)
    _fill_kernel.over(y.size, y.raw, number, y.size)
    return y


@kernel(lambda T: (T[::1], T, int64))
def _fill_kernel(y, value, count):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        y[i] = value
