"""Fully connected layer: matrix products, computed with panels of output features (see ``panels``).

BLAS would be the obvious choice, but its threads keep spinning after a product and take the processors from ours.
"""

import numba
import numpy as np

from kernels import checks
from kernels.cpu import packing
from kernels.cpu.panels import matrix_product, pack_panels
from kernels.cpu.tiling import panel_width


def linear_forward(x, weight, bias=None):
    """Multiply feature vectors by a matrix: ``y[n, o]`` is ``bias[o]`` plus the sum of ``weight[o, i] * x[n, i]``.

    Parameters
    ----------
    x : ndarray, shape (N, in), float32 or float64
        Feature vectors.
    weight : ndarray, shape (out, in)
        Matrix, of the same type as ``x``; stored as in PyTorch's ``linear``.
    bias : ndarray, shape (out,), optional
        What is added to each output feature.

    Returns
    -------
    ndarray, shape (N, out)
        Products.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together.
    """
    x, weight, bias = checks.linear(x, weight, bias)
    return _product(x, weight, weight.shape[0], transposed=True, bias=bias)


def linear_backward(dy, x, weight, *, needs=(True, True, True)):
    """Return the gradients of a fully connected layer.

    Parameters
    ----------
    dy : ndarray, shape (N, out)
        Gradient of the loss with respect to the output.
    x, weight
        As they were given to ``linear_forward``.
    needs : (bool, bool, bool)
        Which of the gradients are wanted.

    Returns
    -------
    dx : ndarray or None, shape (N, in)
        Gradient with respect to ``x``.
    dweight : ndarray or None, shape (out, in)
        Gradient with respect to ``weight``.
    dbias : ndarray or None, shape (out,)
        Gradient with respect to the bias.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together.
    """
    dy, x, weight, needs = checks.linear_gradient(dy, x, weight, needs)
    dx = _product(dy, weight, x.shape[1]) if needs[0] else None
    dweight = _product_of_transposed(dy, x) if needs[1] else None
    with np.errstate(all="ignore"):
        dbias = dy.sum(axis=0, dtype=np.float64).astype(dy.dtype) if needs[2] else None
    return dx, dweight, dbias


def _product(a, b, width, *, transposed=False, bias=None):
    """Return the matrix product of ``a`` (M, K) and ``b`` (K, width) or, ``transposed``, (width, K), plus ``bias``."""
    height, depth = a.shape
    rows, cols = np.arange(height) * depth, np.arange(depth)
    return _multiply(packing.flat(a), rows, cols, b, width, transposed, bias)


def _product_of_transposed(a, b):
    """Return the matrix product of the transpose of ``a`` (K, M) with ``b`` (K, P).

    Neighbours in a column of ``a`` are a whole row apart. So the columns are first cut into panels, where many lie
    side by side.
    """
    depth, height = a.shape
    lanes = panel_width(a.dtype)
    k = np.arange(depth)
    cols = k // lanes * (height * lanes) + k % lanes
    panels = pack_panels(packing.flat(a), depth, height, 1, 0, height)
    return _multiply(panels, np.arange(height) * lanes, cols, b, b.shape[1], False, None)


def _multiply(a, rows, cols, b, width, transposed, bias):
    """Return the product that ``matrix_product`` describes; sums of nothing are the bias."""
    if rows.size == 0 or width == 0:
        return np.empty((rows.size, width), b.dtype)
    threads = numba.get_num_threads()
    return matrix_product(a, rows, cols, packing.flat(b), width, transposed=transposed, bias=bias, threads=threads)
