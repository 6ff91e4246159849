"""What NumPy's functions of whole arrays do on device arrays: the table `FUNCTIONS`; and indexing.

``numpy.zeros_like(a)``, ``numpy.pad(a, ...)`` and their like come to `apply` by way of NumPy's protocol. A device array
is always C-contiguous: what is a view in NumPy, but for another shape over the same elements, is a copy here.
"""

import math
import operator
from collections.abc import Callable

import numpy as np

from kernels.cuda import rows, sums
from kernels.cuda.array import DeviceArray, empty
from kernels.cuda.concat import concat_forward
from kernels.cuda.strides import COPY, View, full, whole


def apply(function, args, parameters):
    """Do what NumPy's protocol ``__array_function__`` asks for.

    Parameters
    ----------
    function : callable
        Of NumPy's: ``numpy.zeros_like``.
    args : tuple
        Its arguments, of which one is a device array, or a list with one.
    parameters : dict
        Its named arguments.

    Returns
    -------
    DeviceArray or bool

    Raises
    ------
    TypeError
        If the device does not do it, or an array of the host takes part.
    ValueError
        If shapes do not fit.
    """
    own = FUNCTIONS.get(function)
    if own is None:
        raise TypeError(
            f"numpy.{function.__name__} has no kernel for device arrays; kernels.cuda.to_host(a) copies one"
        )
    return own(*args, **parameters)


# ---- other shapes and orders -----------------------------------------------------------------------------------------


def _axes(axis, ndim):
    """Return an axis, or several, as a tuple of numbers of at least 0; None for all."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    for each in axes:
        if not -ndim <= operator.index(each) < ndim:
            raise ValueError(f"axis is {each}; expected one from {-ndim} to {ndim - 1}")
    return tuple(operator.index(each) % ndim for each in axes)


def transpose(a, axes=None):
    """Return a copy with the axes in another order, reversed if none is given."""
    axes = tuple(reversed(range(a.ndim))) if axes is None else _axes(tuple(axes), a.ndim)
    if sorted(axes) != list(range(a.ndim)):
        raise ValueError(f"axes are {axes}; expected each of the {a.ndim} axes once")
    moving = [axis for axis in axes if a.shape[axis] != 1]
    if moving == sorted(moving):  # the elements keep their order
        return a.reshape(tuple(a.shape[axis] for axis in axes))
    return whole(a).turned(axes).copied()


def swapaxes(a, axis1, axis2):
    """Return a copy with two axes swapped."""
    (first,), (second,) = _axes(axis1, a.ndim), _axes(axis2, a.ndim)
    axes = list(range(a.ndim))
    axes[first], axes[second] = second, first
    return transpose(a, axes)


def moveaxis(a, source, destination):
    """Return a copy with one axis, or several, at other places."""
    source, destination = _axes(source, a.ndim), _axes(destination, a.ndim)
    order = [axis for axis in range(a.ndim) if axis not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return transpose(a, order)


def expand_dims(a, axis):
    """Return the array with further axes of size 1, over the same memory."""
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    new = _axes(tuple(axes), a.ndim + len(axes))
    sizes = iter(a.shape)
    return a.reshape(tuple(1 if axis in new else next(sizes) for axis in range(a.ndim + len(axes))))


def squeeze(a, axis=None):
    """Return the array without axes of size 1, over the same memory."""
    axes = [i for i, size in enumerate(a.shape) if size == 1] if axis is None else _axes(axis, a.ndim)
    if any(a.shape[axis] != 1 for axis in axes):
        raise ValueError(f"squeeze of axes {tuple(axes)} of a device array of shape {a.shape}; expected sizes of 1")
    return a.reshape(tuple(size for axis, size in enumerate(a.shape) if axis not in axes))


def broadcast_to(a, shape):
    """Return a copy repeated to a shape."""
    return whole(a).repeated(_shape(shape)).copied()


def flip(a, axis=None):
    """Return a copy in reverse order along axes."""
    axes = _axes(axis, a.ndim)
    return a[tuple(slice(None, None, -1 if i in axes else 1) for i in range(a.ndim))]


# ---- new arrays ------------------------------------------------------------------------------------------------------


def _shape(shape):
    """Return a shape, or the size of the only axis, as a tuple."""
    return tuple(shape) if isinstance(shape, tuple | list) else (shape,)


def full_like(a, fill_value, dtype=None, order="K", subok=True, shape=None):
    """Return an array of one number, by default of the shape and type of another."""
    shape = a.shape if shape is None else _shape(shape)
    return full(shape, fill_value, a.dtype if dtype is None else dtype)


def zeros_like(a, dtype=None, order="K", subok=True, shape=None):
    """Return zeros, by default of the shape and type of another array."""
    return full_like(a, 0, dtype, shape=shape)


def ones_like(a, dtype=None, order="K", subok=True, shape=None):
    """Return ones, by default of the shape and type of another array."""
    return full_like(a, 1, dtype, shape=shape)


def empty_like(a, dtype=None, order="K", subok=True, shape=None):
    """Return an array of any content, by default of the shape and type of another."""
    shape = a.shape if shape is None else _shape(shape)
    return empty(shape, a.dtype if dtype is None else dtype)


def copy(a, order="K", subok=False):
    """Return a copy."""
    return whole(a).copied()


def copyto(dst, src, casting="same_kind"):
    """Write an array or number, which broadcasts, to another array."""
    if not isinstance(dst, DeviceArray):
        raise TypeError("copyto of a device array to a NumPy array; copy it with kernels.cuda.to_host")
    kind = src.dtype if isinstance(src, DeviceArray) else np.min_scalar_type(src)
    if isinstance(src, DeviceArray) and not np.can_cast(kind, dst.dtype, casting):
        raise TypeError(f"copyto of a device array of {kind} to one of {dst.dtype}, which it does not fit into")
    set_item(dst, ..., src)


# ---- indexing --------------------------------------------------------------------------------------------------------


def seen(a, index):
    """Return the view that an index of numbers, slices, None and an ellipsis cuts out of a device array.

    Raises
    ------
    TypeError
        If the index holds anything else, such as arrays.
    IndexError
        If a number is out of range, or there are more than the array has axes.
    """
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, bool | np.bool_) or not (part is None or part is ... or isinstance(part, slice)):
            _number(part)
    taken = sum(part is not None and part is not ... for part in parts)
    if taken > a.ndim:
        raise IndexError(f"{taken} indices for a device array of {a.ndim} axes")
    rest = [slice(None)] * (a.ndim - taken)
    at = next((i for i, part in enumerate(parts) if part is ...), len(parts))
    parts = (*parts[:at], *rest, *parts[at + 1 :])
    all_steps, axis, start = whole(a).steps, 0, 0
    shape, steps = [], []
    for part in parts:
        if part is None:
            shape.append(1)
            steps.append(0)
            continue
        size, step = a.shape[axis], all_steps[axis]
        if isinstance(part, slice):
            first, end, stride = part.indices(size)
            count = len(range(first, end, stride))
            start += first * step if count else 0
            shape.append(count)
            steps.append(stride * step)
        else:
            number = _number(part)
            if not -size <= number < size:
                raise IndexError(f"index {number} is out of range for axis {axis} of size {size}")
            start += number % size * step
        axis += 1
    return View(a, tuple(shape), tuple(steps), start)


def _number(part):
    """Return part of an index as a whole number."""
    try:
        if isinstance(part, bool | np.bool_ | np.ndarray):
            raise TypeError
        return operator.index(part)
    except TypeError:
        raise TypeError(
            f"a device array is indexed by a {type(part).__name__}; expected numbers, slices and arrays"
        ) from None


def get_item(a, index):
    """Return a copy of what an index cuts out or picks; the same memory where slices cut out everything."""
    if isinstance(index, rows.Picks) or rows.has_arrays(index):
        return picks(a, index).take(a)
    view = seen(a, index)
    if math.prod(view.shape) == a.size and view.start == 0 and all(step >= 0 for step in view.steps):
        return a.reshape(view.shape)
    return view.copied()


def set_item(a, index, value):
    """Write a device array or a number, which broadcasts, to what an index cuts out or picks."""
    if isinstance(index, rows.Picks) or rows.has_arrays(index):
        picks(a, index).put(a, value)
        return
    view = seen(a, index)
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(
            f"a NumPy array of shape {value.shape} is written to a device array; copy it with kernels.cuda.to_device"
        )
    if not isinstance(value, DeviceArray):
        value = full((), value, a.dtype)
    elif value.raw is a.raw:  # it may be read where it has been written
        value = value.copy()
    extra = max(value.ndim - len(view.shape), 0)
    if any(size != 1 for size in value.shape[:extra]):
        raise ValueError(f"shape {value.shape} does not fit into what the index cuts out, {view.shape}")
    COPY(view, whole(value.reshape(value.shape[extra:])).repeated(view.shape))


def picks(a, index):
    """Return an index with arrays as one that serves several times: see `DeviceArray.picks`."""
    return index if isinstance(index, rows.Picks) else rows.Picks(a.shape, index)


def take(a, indices, axis=None):
    """Return the positions of an axis that are listed, each run of equal steps in one copy: what padding needs."""
    if isinstance(indices, DeviceArray):
        raise TypeError("take of a device array with positions on the device has no kernel")
    (axis,) = _axes(axis, a.ndim) if axis is not None else (None,)
    if axis is None:
        a, axis = a.reshape(-1), 0
    positions, size = np.asarray(indices).tolist(), a.shape[axis]
    if any(not -size <= position < size for position in positions):
        raise IndexError(f"indices run from {min(positions)} to {max(positions)}; expected {-size} to {size - 1}")
    y = empty((*a.shape[:axis], len(positions), *a.shape[axis + 1 :]), a.dtype)
    source, target = whole(a), whole(y)
    begin = 0
    while begin < len(positions):
        end, step = begin + 1, positions[begin + 1] - positions[begin] if begin + 1 < len(positions) else 0
        while end < len(positions) and positions[end] - positions[end - 1] == step:
            end += 1
        at = positions[begin] % size
        COPY(
            _along(target, axis, begin, end - begin, 1),
            _along(source, axis, at, end - begin, step),
        )
        begin = end
    return y


def _along(view, axis, first, count, stride):
    """Return part of a view along an axis."""
    step = view.steps[axis]
    shape = (*view.shape[:axis], count, *view.shape[axis + 1 :])
    steps = (*view.steps[:axis], stride * step, *view.steps[axis + 1 :])
    return View(view.array, shape, steps, view.start + first * step)


# ---- joining and padding ---------------------------------------------------------------------------------------------


def concatenate(arrays, axis=0):
    """Join arrays of one type along an axis."""
    if not all(isinstance(a, DeviceArray) for a in arrays):
        raise TypeError("concatenate of device and NumPy arrays: copy some with kernels.cuda.to_device or to_host")
    return concat_forward(list(arrays), axis)


def pad(a, pad_width, mode="constant", *, constant_values=0):
    """Return a copy with a border of a constant; ``pad_width`` has the sizes before and after each axis."""
    if mode != "constant" or np.ndim(constant_values):
        raise TypeError(f"pad of a device array with mode {mode!r} has no kernel; expected 'constant' and one number")
    widths = [tuple(map(operator.index, pair)) for pair in np.broadcast_to(pad_width, (a.ndim, 2)).tolist()]
    sizes = [before + size + after for size, (before, after) in zip(a.shape, widths, strict=True)]
    y = full(sizes, constant_values, a.dtype)
    y[tuple(slice(before, before + size) for size, (before, _) in zip(a.shape, widths, strict=True))] = a
    return y


# ---- sums ------------------------------------------------------------------------------------------------------------


def total(a, axis=None, dtype=None, out=None, keepdims=False):
    """Return the sums along axes. Whole numbers and bools are counted as int64, exactly up to 2**53."""
    if dtype is not None or out is not None:
        raise TypeError("sum of a device array with dtype or out has no kernel; change the type with astype")
    if a.dtype.kind != "f":
        return total(a.astype(np.float64), axis, keepdims=keepdims).astype(np.int64)
    return sums.sum_along(a, _axes(axis, a.ndim), keepdims)


def mean(a, axis=None, dtype=None, out=None, keepdims=False):
    """Return the means along axes; NaN over nothing."""
    if dtype is not None or out is not None or a.dtype.kind != "f":
        raise TypeError(f"mean of a device array of {a.dtype} has no kernel; change its type with astype")
    count = math.prod(a.shape[axis] for axis in _axes(axis, a.ndim))
    return total(a, axis, keepdims=keepdims) / count


def largest(a, axis=None, out=None, keepdims=False):
    """Return the largest values along axes; NaN where one is NaN."""
    if out is not None or a.dtype.kind == "b":
        raise TypeError(f"max of a device array of {a.dtype} has no kernel; change its type with astype")
    return sums.largest_along(a, _axes(axis, a.ndim), keepdims)


def all_true(a, axis=None, out=None, keepdims=False):
    """Return whether all values along axes are true."""
    if out is not None:
        raise TypeError("all of a device array with out has no kernel")
    count = math.prod(a.shape[axis] for axis in _axes(axis, a.ndim))
    return total(a if a.dtype == np.bool_ else a != 0, axis, keepdims=keepdims) == count


def clip(a, a_min=None, a_max=None, out=None):
    """Return the values limited to a range."""
    y = a if a_min is None else np.maximum(a, a_min)
    y = y if a_max is None else np.minimum(y, a_max)
    if out is None:
        return y.copy() if y is a else y
    copyto(out, y)
    return out


def may_share_memory(a, b, max_work=None):
    """Return whether two arrays lie in the same memory: never, if one is on the host."""
    return isinstance(a, DeviceArray) and isinstance(b, DeviceArray) and a.raw is b.raw


#: By NumPy's function: what the device does for it.
FUNCTIONS: dict[Callable, Callable] = {
    np.all: all_true,
    np.amax: largest,
    np.broadcast_to: broadcast_to,
    np.clip: clip,
    np.concatenate: concatenate,
    np.copy: copy,
    np.copyto: copyto,
    np.empty: lambda shape, dtype=np.float64, order="C": empty(_shape(shape), dtype),  # asked for by like=
    np.empty_like: empty_like,
    np.expand_dims: expand_dims,
    np.flip: flip,
    np.full_like: full_like,
    np.max: largest,
    np.may_share_memory: may_share_memory,
    np.mean: mean,
    np.moveaxis: moveaxis,
    np.ndim: lambda a: a.ndim,
    np.ones_like: ones_like,
    np.pad: pad,
    np.ravel: lambda a, order="C": a.reshape(-1),
    np.reshape: lambda a, shape, order="C": a.reshape(shape),
    np.shape: lambda a: a.shape,
    np.shares_memory: may_share_memory,
    np.size: lambda a, axis=None: a.size if axis is None else a.shape[axis],
    np.squeeze: squeeze,
    np.sum: total,
    np.swapaxes: swapaxes,
    np.take: take,
    np.transpose: transpose,
    np.zeros: lambda shape, dtype=np.float64, order="C": full(_shape(shape), 0, dtype),
    np.zeros_like: zeros_like,
}
