"""Checks of elementwise operators and of joining arrays."""

import numpy as np

from kernels.checks.arguments import array, axis, integer, same_shape, shape


def gradient_of(dy, y, name="y"):
    """Return ``dy, y`` of one shape and type, for an operator whose gradient follows from ``y``."""
    y = array(name, y)
    return same_shape("dy", array("dy", dy, None, y.dtype), y.shape, f"the shape of {name}"), y


def add(a, b):
    """Return ``a, b, shape``: two arrays that broadcast to ``shape``."""
    a = array("a", a)
    b = array("b", b, None, a.dtype)
    try:
        return a, b, np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(f"a has shape {a.shape} and b has shape {b.shape}, which do not broadcast") from None


def add_gradient(dy, a_shape, b_shape):
    """Return ``dy, a_shape, b_shape``."""
    dy = array("dy", dy)
    a_shape, b_shape = shape("a_shape", a_shape), shape("b_shape", b_shape)
    try:
        expected = np.broadcast_shapes(a_shape, b_shape)
    except ValueError:
        raise ValueError(f"a_shape is {a_shape} and b_shape is {b_shape}, which do not broadcast") from None
    return same_shape("dy", dy, expected, "the shape of the output"), a_shape, b_shape


def concat(arrays, axis_):
    """Return ``arrays, axis``: a list of arrays that agree in type and in every axis but one."""
    if not isinstance(arrays, (tuple, list)) or not arrays:
        raise ValueError("arrays is empty or not a list; expected at least one array")
    arrays = [array("arrays[0]", arrays[0])] + [
        array(f"arrays[{i}]", a, arrays[0].ndim, arrays[0].dtype.newbyteorder("=")) for i, a in enumerate(arrays[1:], 1)
    ]
    along = axis(axis_, arrays[0].ndim)
    first = arrays[0].shape
    for i, a in enumerate(arrays):
        if a.shape[:along] + a.shape[along + 1 :] != first[:along] + first[along + 1 :]:
            raise ValueError(f"arrays[{i}] has shape {a.shape}; expected {first} but for axis {along}")
    return arrays, along


def concat_gradient(dy, sizes, axis_):
    """Return ``dy, sizes, axis``."""
    dy = array("dy", dy)
    along = axis(axis_, dy.ndim)
    if not isinstance(sizes, (tuple, list)):
        raise ValueError(f"sizes is {sizes!r}; expected a list: the size of each array along axis {along}")
    sizes = [integer("sizes", size, 0) for size in sizes]
    if sum(sizes) != dy.shape[along]:
        raise ValueError(f"sizes sum to {sum(sizes)}; expected {dy.shape[along]}, the size of dy along axis {along}")
    return dy, sizes, along
