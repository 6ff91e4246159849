"""Sum of two arrays, with broadcasting: an axis of size 1, or a missing first axis, is repeated as often as needed.

    y[i] = a[source_a[i]] + b[source_b[i]]

where ``i`` counts through all elements of the result, and ``source_a[i]`` is the element of a that lands there.

Gradients. y grows as fast as a and as b, so each hands dy on; an element that was repeated collects from its copies:

    da[j] = sum of dy[i]   over all i with source_a[i] = j        (db likewise)
"""

import math

import numpy as np

from kernels import checks
from kernels.jit import jit


def add_forward(a, b):
    """Add two arrays.

    Parameters
    ----------
    a, b : ndarray
        Float32 or float64, of one type; their shapes broadcast as in NumPy.

    Returns
    -------
    ndarray
        The sum, of the common shape.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or b not a's.
    ValueError
        If the shapes do not broadcast.
    """
    a, b, shape = checks.add(a, b)
    y = np.empty(shape, a.dtype)
    _add_kernel(y.reshape(-1), a.reshape(-1), b.reshape(-1), _sources(a.shape, shape), _sources(b.shape, shape))
    return y


def add_backward(dy, a_shape, b_shape):
    """Return the gradients of a sum.

    Parameters
    ----------
    dy : ndarray
        Gradient of the sum.
    a_shape, b_shape : tuple of int
        Shapes of what was added.

    Returns
    -------
    da, db : ndarray
        Gradients, of the shapes given.

    Raises
    ------
    TypeError, ValueError
        If dy is not an array of the shape that the two broadcast to.
    """
    dy, a_shape, b_shape = checks.add_gradient(dy, a_shape, b_shape)
    da, db = np.zeros(a_shape, dy.dtype), np.zeros(b_shape, dy.dtype)
    _add_gradient_kernel(da.reshape(-1), dy.reshape(-1), _sources(a_shape, dy.shape))
    _add_gradient_kernel(db.reshape(-1), dy.reshape(-1), _sources(b_shape, dy.shape))
    return da, db


def _sources(shape, result_shape):
    """Return, for each element of the result, which element of an array of ``shape`` lands there."""
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return np.broadcast_to(numbers, result_shape).reshape(-1)


@jit
def _add_kernel(y, a, b, source_a, source_b):
    """One element after the other."""
    for i in range(len(y)):
        y[i] = a[source_a[i]] + b[source_b[i]]


@jit
def _add_gradient_kernel(da, dy, source_a):
    """Each element of dy goes to where the summand came from."""
    for i in range(len(dy)):
        da[source_a[i]] += dy[i]
