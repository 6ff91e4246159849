"""Resizing. What each output row and column reads is tabulated first; then one task computes one plane.

Bilinear resizing blends two input rows into one, many columns at once, and picks the columns from the blend. Its
backward does the same in reverse, so that each plane of the gradient is summed by one task, in order.
"""

import numpy as np
from numba import prange

from kernels import checks, scalar_math
from kernels.cpu.blocks import flat
from kernels.jit import jit

_nearest_source = jit(scalar_math.nearest_source)
_bilinear_source = jit(scalar_math.bilinear_source)


def upsample2d_forward(x, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Resize pictures.

    Parameters
    ----------
    x : ndarray, (N, C, H, W), float32 or float64
        Input.
    size : int or pair of int, optional
        Height and width of the output, in pixels.
    scale_factor : float or pair of float, optional
        Instead of ``size``: output pixels per input pixel.
    mode : {"nearest", "bilinear"}
        Whether an output pixel copies one input pixel or blends the nearest four.
    align_corners : bool
        For ``"bilinear"``: whether the centres of the corner pixels coincide, instead of the pictures' edges.

    Returns
    -------
    ndarray, (N, C, oH, oW)
        Output.

    Raises
    ------
    TypeError
        If ``x`` is not an array of float32 or float64, or a size is not a whole number.
    ValueError
        If ``x`` does not have 4 axes, or the parameters do not fit together.

    Notes
    -----
    As PyTorch's ``interpolate``.
    """
    x, g = checks.upsample2d(x, size, scale_factor, mode, align_corners)
    y = np.empty((g.N, g.C, g.oH, g.oW), x.dtype)
    if y.size:
        planes = flat(x).reshape(-1, g.H, g.W)
        kernel = _nearest_forward_kernel if mode == "nearest" else _bilinear_forward_kernel
        kernel(y.reshape(-1, g.oH, g.oW), planes, *_tables(g, x.dtype, mode, align_corners))
    return y


def upsample2d_backward(dy, input_shape, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Return the gradient of the input of a resizing.

    Parameters
    ----------
    dy : ndarray, (N, C, oH, oW), float32 or float64
        Gradient of the output.
    input_shape : tuple of int
        (N, C, H, W) of the input.
    size, scale_factor, mode, align_corners
        As in the forward call.

    Returns
    -------
    ndarray, (N, C, H, W)
        Gradient of the input: for each input pixel, the sum of ``dy`` over the output pixels that read it, times their
        weights.

    Raises
    ------
    TypeError
        If ``dy`` is not an array of float32 or float64, or a size is not a whole number.
    ValueError
        If the shapes or parameters do not fit together.
    """
    dy, g = checks.upsample2d_gradient(dy, input_shape, size, scale_factor, mode, align_corners)
    dx = np.zeros((g.N, g.C, g.H, g.W), dy.dtype)
    if dy.size:
        planes = flat(dy).reshape(-1, g.oH, g.oW)
        kernel = _nearest_backward_kernel if mode == "nearest" else _bilinear_backward_kernel
        kernel(dx.reshape(-1, g.H, g.W), planes, *_tables(g, dy.dtype, mode, align_corners))
    return dx


def _tables(g, dtype, mode, align_corners):
    """Return which rows and columns each output row and column reads, and for bilinear resizing their weights."""
    if mode == "nearest":
        rows, columns = np.empty(g.oH, np.int64), np.empty(g.oW, np.int64)
        _nearest_table_kernel(rows, np.float32(g.step_h), g.H)
        _nearest_table_kernel(columns, np.float32(g.step_w), g.W)
        return rows, columns
    half = dtype.type(0 if align_corners else 0.5)
    rows, row_weights = np.empty((2, g.oH), np.int64), np.empty(g.oH, dtype)
    columns, column_weights = np.empty((2, g.oW), np.int64), np.empty(g.oW, dtype)
    _bilinear_table_kernel(rows, row_weights, dtype.type(g.step_h), g.H, half)
    _bilinear_table_kernel(columns, column_weights, dtype.type(g.step_w), g.W, half)
    return rows, row_weights, columns, column_weights


@jit
def _nearest_table_kernel(table, step, size):
    for i in range(table.size):
        table[i] = _nearest_source(np.float32(i), step, size)


@jit
def _bilinear_table_kernel(table, weights, step, size, half):
    kind = weights.dtype.type
    for i in range(weights.size):
        table[0, i], table[1, i], weights[i] = _bilinear_source(kind(i), step, size, half)


@jit(parallel=True)
def _nearest_forward_kernel(y, x, rows, columns):
    for plane in prange(x.shape[0]):
        _nearest_forward_plane(np.int64(plane), y, x, rows, columns)


@jit
def _nearest_forward_plane(plane, y, x, rows, columns):
    y, x = y[plane], x[plane]
    for row in range(rows.size):
        to, source = y[row], x[rows[row]]
        if row > 0 and rows[row] == rows[row - 1]:
            above = y[row - 1]
            for column in range(columns.size):
                to[column] = above[column]
        else:
            for column in range(columns.size):
                to[column] = source[columns[column]]


@jit(parallel=True)
def _nearest_backward_kernel(dx, dy, rows, columns):
    for plane in prange(dx.shape[0]):
        _nearest_backward_plane(np.int64(plane), dx, dy, rows, columns)


@jit
def _nearest_backward_plane(plane, dx, dy, rows, columns):
    dx, dy = dx[plane], dy[plane]
    for row in range(rows.size):
        to = dx[rows[row]]
        for column in range(columns.size):
            to[columns[column]] += dy[row, column]


@jit(parallel=True)
def _bilinear_forward_kernel(y, x, rows, row_weights, columns, column_weights):
    for plane in prange(x.shape[0]):
        _bilinear_forward_plane(np.int64(plane), y, x, rows, row_weights, columns, column_weights)


@jit
def _bilinear_forward_plane(plane, y, x, rows, row_weights, columns, column_weights):
    y, x = y[plane], x[plane]
    one = x.dtype.type(1)
    blend = np.empty(x.shape[1], x.dtype)
    for row in range(y.shape[0]):
        upper, lower, weight = x[rows[0, row]], x[rows[1, row]], row_weights[row]
        for column in range(x.shape[1]):
            blend[column] = upper[column] * (one - weight) + lower[column] * weight
        for column in range(y.shape[1]):
            weight = column_weights[column]
            y[row, column] = blend[columns[0, column]] * (one - weight) + blend[columns[1, column]] * weight


@jit(parallel=True)
def _bilinear_backward_kernel(dx, dy, rows, row_weights, columns, column_weights):
    for plane in prange(dx.shape[0]):
        _bilinear_backward_plane(np.int64(plane), dx, dy, rows, row_weights, columns, column_weights)


@jit
def _bilinear_backward_plane(plane, dx, dy, rows, row_weights, columns, column_weights):
    dx, dy = dx[plane], dy[plane]
    one = dy.dtype.type(1)
    blend = np.empty(dx.shape[1], dx.dtype)
    for row in range(dy.shape[0]):
        for column in range(blend.size):
            blend[column] = 0
        for column in range(dy.shape[1]):
            weight = column_weights[column]
            blend[columns[0, column]] += dy[row, column] * (one - weight)
            blend[columns[1, column]] += dy[row, column] * weight
        for end in range(2):
            to, weight = dx[rows[end, row]], row_weights[row]
            share = weight if end else one - weight
            for column in range(blend.size):
                to[column] += blend[column] * share
