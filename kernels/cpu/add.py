"""Addition. Arrays of one shape are added block by block, in parallel; broadcasting is left to NumPy."""

import numpy as np

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice
from kernels.cpu.memory import empty
from kernels.cpu.tasks import run
from kernels.jit import jit


def add_forward(a, b):
    """Return ``a + b``.

    Parameters
    ----------
    a, b : ndarray, float32 or float64
        Arrays of one type, whose shapes broadcast as in NumPy.

    Returns
    -------
    ndarray
        The sum.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes do not broadcast.
    """
    a, b, shape = checks.add(a, b)
    y = empty(shape, a.dtype)
    if a.shape != b.shape:
        with np.errstate(all="ignore"):  # infinities of both signs make NaN, silently
            np.add(a, b, out=y)
    elif y.size:
        run(_add_block, block_count(y.size), (y.size,), y, a, b)
    return y


def add_backward(dy, a_shape, b_shape):
    """Return the gradients of both summands: ``dy``, summed over the axes along which a summand was repeated.

    Parameters
    ----------
    dy : ndarray, float32 or float64
        Gradient of the sum.
    a_shape, b_shape : tuple of int
        Shapes of the summands.

    Returns
    -------
    da, db : ndarray
        Gradients of ``a`` and ``b``, summed in float64, of the type of ``dy``.

    Raises
    ------
    TypeError
        If ``dy`` is not an array of float32 or float64.
    ValueError
        If the shapes do not broadcast to that of ``dy``.
    """
    dy, a_shape, b_shape = checks.add_gradient(dy, a_shape, b_shape)
    return _sum_to(dy, a_shape), _sum_to(dy, b_shape)


def _sum_to(dy, shape):
    """Return ``dy`` summed to ``shape``, always a new array."""
    if dy.shape == shape:
        da = empty(shape, dy.dtype)
        np.copyto(da, dy)
        return da
    padded = (1,) * (dy.ndim - len(shape)) + shape
    repeated = tuple(i for i, size in enumerate(padded) if size == 1 and dy.shape[i] != 1)
    with np.errstate(all="ignore"):
        return np.asarray(dy.sum(axis=repeated, dtype=np.float64), dy.dtype).reshape(shape)


@jit
def _add_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    y, a, b = arrays.out[part], arrays.a[part], arrays.b[part]
    for i in range(y.size):
        y[i] = a[i] + b[i]
