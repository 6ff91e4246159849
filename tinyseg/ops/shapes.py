"""Reshaping, indexing, joining, padding, and sums: what moves values around."""

import numpy as np

from tinyseg.backend import is_on_device, kernel
from tinyseg.function import Function
from tinyseg.ops.elementwise import sum_to_shape
from tinyseg.tensor import Tensor, whole_array


class Reshape(Function):
    def forward(self, x, *, shape):
        self.shape = x.shape
        return x.reshape(shape)

    def backward(self, dy):
        return dy.reshape(self.shape)


class Permute(Function):
    def forward(self, x, *, axes):
        self.axes = axes
        return x.transpose(axes)

    def backward(self, dy):
        return dy.transpose(np.argsort(self.axes))


class Index(Function):
    def forward(self, x, *, index):
        self.shape, self.picking = x.shape, _has_arrays(index)
        self.index = index = index_beside(x, index)
        y = x[index]
        if self.picking or not isinstance(y, np.generic):
            return y
        return x[(*index, ...) if isinstance(index, tuple) else (index, ...)]  # one element: a view too, not its value

    def backward(self, dy):
        dx = np.zeros_like(dy, shape=self.shape)
        if self.picking:
            np.add.at(dx, self.index, dy)  # an element may have been picked several times
        else:
            dx[self.index] = dy
        return dx


class Assign(Function):
    """A copy of x with the values at an index replaced."""

    def forward(self, x, value, *, index):
        self.index, self.value_shape = index_beside(x, index), value.shape
        y = x.copy()
        y[self.index] = value
        return y

    def backward(self, dy):
        dx = dy.copy()
        dx[self.index] = 0
        dvalue = whole_array(dy[self.index])
        extra = max(len(self.value_shape) - dvalue.ndim, 0)  # axes of size 1 in front, which assignment drops
        return dx, sum_to_shape(dvalue, self.value_shape[extra:]).reshape(self.value_shape)


class Sum(Function):
    def forward(self, x, *, axis, keepdims):
        self.shape, self.axis, self.keepdims = x.shape, axis, keepdims
        return x.sum(axis=axis, keepdims=keepdims)

    def backward(self, dy):
        if self.axis is not None and not self.keepdims:
            dy = np.expand_dims(dy, self.axis)
        return np.broadcast_to(dy, self.shape)


class Cat(Function):
    def forward(self, *tensors, dim):
        self.dim = dim
        y = kernel("concat_forward")(list(tensors), axis=dim)
        self.sizes = [tensor.shape[dim] for tensor in tensors]
        return y

    def backward(self, dy):
        return kernel("concat_backward")(dy, self.sizes, axis=self.dim)


class Pad(Function):
    """Padding by index: position i of the output repeats position ``where[i]`` of the input; -1 is the constant."""

    def forward(self, x, *, amounts, mode, value):
        self.amounts = amounts
        self.where = [_padded_indices(size, amount, mode) for size, amount in zip(x.shape, amounts, strict=True)]
        if mode == "constant":
            return np.pad(x, amounts, constant_values=value)
        for axis, (indices, amount) in enumerate(zip(self.where, amounts, strict=True)):
            if any(amount):
                x = x.take(indices, axis=axis)
        return x

    def backward(self, dy):
        for axis, (indices, (before, after)) in enumerate(zip(self.where, self.amounts, strict=True)):
            if before == after == 0:
                continue
            dy = np.moveaxis(dy, axis, 0)
            size = len(indices) - before - after
            dx = dy[before : before + size].copy()
            for i in (*range(before), *range(before + size, len(indices))):
                if indices[i] >= 0:
                    dx[indices[i]] += dy[i]
            dy = np.moveaxis(dx, 0, axis)
        return dy


def _padded_indices(size, amount, mode):
    """Return which position of an axis each position of the padded axis repeats; -1 where it is the constant."""
    position = np.arange(-amount[0], size + amount[1])
    if mode == "replicate":
        return position.clip(0, size - 1)
    if mode == "reflect":  # 2 1 | 0 1 2 3 | 2 1: the border itself is not repeated
        position = np.abs(position)
        return np.where(position < size, position, 2 * (size - 1) - position)
    return np.where((position >= 0) & (position < size), position, -1)


def _has_arrays(index):
    """Return whether an index holds arrays, which copy, as opposed to numbers and slices, which make a view."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list | np.ndarray) or is_on_device(part) for part in parts)


def index_beside(x, index):
    """Return an index for an array: one with arrays, for the device, is checked and copied there, to serve twice."""
    return x.picks(index) if is_on_device(x) and _has_arrays(index) else index


def _plain_index(index):
    """Return an index with its tensors and lists as arrays of its own."""
    if isinstance(index, tuple):
        return tuple(_plain_index(part) for part in index)
    if isinstance(index, Tensor):
        return index.array.copy()
    if isinstance(index, list) and not index:
        return np.array(index, np.intp)
    return np.array(index) if isinstance(index, list | np.ndarray) else index


def _arguments(values):
    """Return the sizes or axes given one by one, or as one tuple, as a tuple."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], tuple | list) else values


def reshape(x, *shape):
    """Return the values in another shape.

    Parameters
    ----------
    x : Tensor
        Any shape.
    *shape : int
        The new sizes, one by one or as a tuple; one of them may be -1, to be worked out.

    Returns
    -------
    Tensor
        A view where possible.
    """
    return Reshape.apply(x, shape=_arguments(shape))


def flatten(x, start_dim=0, end_dim=-1):
    """Join the axes from ``start_dim`` to ``end_dim``, both included.

    Parameters
    ----------
    x : Tensor
        Any shape.
    start_dim, end_dim : int
        Axes; negative ones count from the end.

    Returns
    -------
    Tensor
    """
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = start_dim % x.ndim, end_dim % x.ndim
    return reshape(x, *x.shape[:start], int(np.prod(x.shape[start : end + 1])), *x.shape[end + 1 :])


def permute(x, *axes):
    """Return the tensor with its axes in another order.

    Parameters
    ----------
    x : Tensor
        Any shape.
    *axes : int
        All axes in their new order, one by one or as a tuple.

    Returns
    -------
    Tensor
        A view.
    """
    axes = _arguments(axes)
    if sorted(axis % x.ndim for axis in axes) != list(range(x.ndim)):
        raise ValueError(f"axes are {axes}; expected each of the {x.ndim} axes once")
    return Permute.apply(x, axes=tuple(axis % x.ndim for axis in axes))


def transpose(x, *axes):
    """Swap two axes, as PyTorch does; or reorder all of them, as NumPy does.

    Parameters
    ----------
    x : Tensor
        Any shape.
    *axes : int
        Two axes to swap; or every axis in its new order; or nothing, to reverse the order.

    Returns
    -------
    Tensor
        A view.
    """
    axes = _arguments(axes)
    if not axes:
        return permute(x, *reversed(range(x.ndim)))
    if len(axes) != 2:
        return permute(x, *axes)
    order = list(range(x.ndim))
    order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
    return permute(x, *order)


def _reduced_axes(x, axis):
    """Return the axes of a sum as a tuple of numbers of at least 0, or None for all."""
    if axis is None:
        return None
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    for each in axes:
        if not -x.ndim <= each < x.ndim:
            raise ValueError(f"axis is {each}; expected one from {-x.ndim} to {x.ndim - 1}")
    return tuple(each % x.ndim for each in axes)


def sum(x, axis=None, keepdims=False):
    """Return the sum over all values, or along axes.

    Parameters
    ----------
    x : Tensor
        Any shape.
    axis : int or tuple of int, optional
        Axes to sum over; all of them if left out.
    keepdims : bool
        Keep the summed axes, with size 1.

    Returns
    -------
    Tensor
    """
    return Sum.apply(x, axis=_reduced_axes(x, axis), keepdims=keepdims)


def mean(x, axis=None, keepdims=False):
    """Return the mean of all values, or along axes; NaN over nothing.

    Parameters
    ----------
    x : Tensor
        Any shape.
    axis : int or tuple of int, optional
        Axes to average over; all of them if left out.
    keepdims : bool
        Keep the averaged axes, with size 1.

    Returns
    -------
    Tensor
    """
    axes = _reduced_axes(x, axis)
    count = x.size if axes is None else int(np.prod([x.shape[i] for i in axes]))
    return sum(x, axis, keepdims) / count


def cat(tensors, dim=0):
    """Join tensors along an axis.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of one type, and of one shape but for axis ``dim``.
    dim : int
        The axis to join along.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the list is empty or the shapes do not fit.
    """
    return Cat.apply(*tensors, dim=dim)


def pad(input, pad, mode="constant", value=None):
    """Add a border. Arguments and their order follow PyTorch's ``functional.pad``.

    Parameters
    ----------
    input : Tensor
        Any shape, ``(N, C, H, W)`` say.
    pad : sequence of int
        Elements to add before and after the last axis, then the one before it, and so on: for pictures
        ``(left, right, top, bottom)``. Negative numbers crop.
    mode : {"constant", "reflect", "replicate"}
        What the border holds: a constant; the picture mirrored at its border pixels; or the border pixels repeated.
    value : float, optional
        The constant, 0 if left out.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the mode is unknown, the numbers do not come in pairs, or the picture is too small to mirror.
    """
    if mode not in ("constant", "reflect", "replicate"):
        raise ValueError(f"mode is {mode!r}; expected 'constant', 'reflect' or 'replicate'")
    if value is not None and mode != "constant":
        raise ValueError(f"value is {value!r}; expected None with mode {mode!r}")
    pad = tuple(pad)
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad is {pad}; expected a pair of numbers for each of at most {input.ndim} axes")
    amounts = [(0, 0)] * (input.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    for size, amount in zip(input.shape, amounts, strict=True):
        if size + min(amount[0], 0) + min(amount[1], 0) < 0:
            raise ValueError(f"pad is {pad}, which crops more than there is of shape {input.shape}")
        if mode == "reflect" and max(amount) >= size and max(amount) > 0:
            raise ValueError(f"pad is {pad} for shape {input.shape}; expected less than the size of each mirrored axis")
        if mode == "replicate" and size == 0 and max(amount) > 0:
            raise ValueError(f"pad is {pad} for shape {input.shape}, which has no border to repeat")
    if any(before < 0 or after < 0 for before, after in amounts):
        crop = (slice(-min(b, 0), s + min(a, 0)) for s, (b, a) in zip(input.shape, amounts, strict=True))
        input = input[tuple(crop)]
        amounts = [(max(before, 0), max(after, 0)) for before, after in amounts]
    return Pad.apply(input, amounts=amounts, mode=mode, value=0 if value is None else value)


def _get_item(self, index):
    """Return ``x[index]``: by numbers and slices (a view), or by arrays of integers or bools (a copy).

    A tensor on the device takes arrays of either side: see ``kernels.cuda.DeviceArray.picks``.
    """
    return Index.apply(self, index=_plain_index(index))


def _install():
    """Give the operators to the class Tensor."""
    for method in (reshape, flatten, permute, transpose, sum, mean):
        setattr(Tensor, method.__name__, method)
    Tensor.__getitem__ = _get_item


_install()
