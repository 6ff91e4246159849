"""Resizing. A thread takes one pixel of the result after the other; those of a row side by side.

What each row and column of the output reads is tabulated once for each geometry, on the device. Backward, a thread
takes one pixel of the input and collects from the outputs that read it: no two threads write to one place, and the
order of the sums is fixed. A second table tells which outputs these are: along an axis they follow each other, since
positions rise, so two binary searches in the first table find them.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.types import boolean, float32, float64, int32, int64

from kernels import checks
from kernels.cuda.array import DeviceArray, empty, on_device
from kernels.cuda.device import cuda, device_function, kernel, rounded_product, typed_kernel


def upsample2d_forward(x, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Resize pictures.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C, H, W)
        Pictures, float32 or float64.
    size : int or pair of int, optional
        Height and width of the result, in pixels. Either this or ``scale_factor`` is given.
    scale_factor : float or pair of float, optional
        Factors (vertical, horizontal); sizes are rounded down.
    mode : {"nearest", "bilinear"}
        How values between pixels are found.
    align_corners : bool
        Whether the centres of the corner pixels of both pictures meet, rather than their outer corners. Bilinear only.

    Returns
    -------
    DeviceArray, shape (N, C, oH, oW)
        The resized pictures.

    Raises
    ------
    TypeError
        If x has another type than float32 or float64.
    ValueError
        If parameters do not fit each other, or nothing would be left of the picture.

    Notes
    -----
    Follows ``torch.nn.functional.interpolate`` with ``recompute_scale_factor=None``.
    """
    x, g = checks.upsample2d(x, size, scale_factor, mode, align_corners)
    (x,) = on_device(x)
    y = empty((g.N, g.C, g.oH, g.oW), x.dtype)
    planes, sizes = g.N * g.C, (g.H, g.W, g.oH, g.oW)
    if y.size:
        t = _tables(*g[2:], mode, bool(align_corners), x.dtype)
        run = _nearest_kernel if mode == "nearest" else _bilinear_kernel
        run.over_rows(planes * g.oH, g.oW, y.raw, x.raw, t.low.raw, t.weight.raw, planes, *sizes)
    return y


def upsample2d_backward(dy, input_shape, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Return the gradient of resizing.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, C, oH, oW)
        Gradient of the output.
    input_shape : tuple of int
        Shape (N, C, H, W) of the pictures.
    size, scale_factor, mode, align_corners
        As given to `upsample2d_forward`.

    Returns
    -------
    DeviceArray, shape (N, C, H, W)
        Gradient of the pictures.

    Raises
    ------
    TypeError, ValueError
        As `upsample2d_forward`, and if dy has not the shape of the output.
    """
    dy, g = checks.upsample2d_gradient(dy, input_shape, size, scale_factor, mode, align_corners)
    (dy,) = on_device(dy)
    dx = empty((g.N, g.C, g.H, g.W), dy.dtype)
    planes, sizes = g.N * g.C, (g.H, g.W, g.oH, g.oW)
    if dx.size:
        t = _tables(*g[2:], mode, bool(align_corners), dy.dtype)
        if mode == "nearest":
            _nearest_gradient_kernel.over_rows(planes * g.H, g.W, dx.raw, dy.raw, t.readers.raw, planes, *sizes)
        else:
            tables = t.readers.raw, t.low.raw, t.weight.raw
            _bilinear_gradient_kernel.over_rows(planes * g.H, g.W, dx.raw, dy.raw, *tables, planes, *sizes)
    return dx


# ---- what reads what -------------------------------------------------------------------------------------------------


class _Tables(NamedTuple):
    """Which pixels outputs read: first those of the rows, then those of the columns.

    Attributes
    ----------
    low : DeviceArray of int32, shape (oH + oW,)
        The pixel before each output's position.
    weight : DeviceArray, shape (oH + oW,)
        Weight of the pixel after it; only for bilinear resizing.
    readers : DeviceArray of int32, shape (2 * (H + W),)
        The first output that reads each pixel, and the one after the last: H of each, then W of each.
    """

    low: DeviceArray
    weight: DeviceArray
    readers: DeviceArray


@lru_cache(maxsize=100)
def _tables(H, W, oH, oW, step_h, step_w, mode, align_corners, dtype):
    """Return the tables of a geometry."""
    tables = _Tables(empty((oH + oW,), np.int32), empty((oH + oW,), dtype), empty((2 * (H + W),), np.int32))
    nearest, half = mode == "nearest", 0.0 if align_corners else 0.5
    for out, pixels, step, start, start_readers in ((oH, H, step_h, 0, 0), (oW, W, step_w, oH, 2 * H)):
        low, weight = tables.low.raw[start : start + out], tables.weight.raw[start : start + out]
        readers = tables.readers.raw[start_readers : start_readers + 2 * pixels]
        _positions_kernel.over(out, low, weight, step, half, nearest, pixels, out)
        _readers_kernel.over(pixels, readers, low, nearest, pixels, out)
    return tables


@typed_kernel(lambda T: (int32[::1], T[::1], float64, float64, boolean, int64, int64))
def _positions_kernel(T):
    product, product_of_nearest = rounded_product(T), rounded_product(float32)
    zero, one = T(0), T(1)

    def positions(low, weight, step, half, nearest, pixels, out):
        """A thread: what one row or column of the output reads; positions are rounded as PyTorch's."""
        for i in range(cuda.grid(1), out, cuda.gridsize(1)):
            if nearest:
                low[i] = min(int64(product_of_nearest(float32(i), float32(step))), pixels - 1)
            else:
                position = max(product(T(i) + T(half), T(step)) - T(half), zero)
                before = min(int64(position), pixels - 1)
                low[i] = before
                weight[i] = min(position - T(before), one)

    return positions


@kernel(lambda T: (int32[::1], int32[::1], boolean, int64, int64))
def _readers_kernel(readers, low, nearest, pixels, out):
    """A thread: the first output that reads one pixel, and the one after the last."""
    for i in range(cuda.grid(1), pixels, cuda.gridsize(1)):
        # the second pixel that is read is the one after low, but the last pixel has none after it
        readers[i] = _first_above(low, out, i - 1 if nearest else i - 2)
        readers[pixels + i] = _first_above(low, out, i)


@device_function
def _first_above(low, out, pixel):
    """Return the first output whose ``low`` is above ``pixel``."""
    first, end = 0, out
    while first < end:
        middle = (first + end) // 2
        if low[middle] > pixel:
            end = middle
        else:
            first = middle + 1
    return first


# ---- kernels ---------------------------------------------------------------------------------------------------------


@kernel(lambda T: (T[::1], T[::1], int32[::1], T[::1], int64, int64, int64, int64, int64))
def _nearest_kernel(y, x, low, weight, planes, H, W, oH, oW):
    """A thread: the outputs at one column of some rows."""
    column, row = cuda.grid(2)
    columns_on, rows_on = cuda.gridsize(2)
    while row < planes * oH:
        plane = row // oH
        start = (plane * H + low[row - plane * oH]) * W
        ox = column
        while ox < oW:
            y[row * oW + ox] = x[start + low[oH + ox]]
            ox += columns_on
        row += rows_on


@typed_kernel(lambda T: (T[::1], T[::1], int32[::1], T[::1], int64, int64, int64, int64, int64))
def _bilinear_kernel(T):
    one = T(1)

    def bilinear(y, x, low, weight, planes, H, W, oH, oW):
        """A thread: the outputs at one column of some rows, each of four pixels."""
        column, row = cuda.grid(2)
        columns_on, rows_on = cuda.gridsize(2)
        while row < planes * oH:
            plane = row // oH
            oy = row - plane * oH
            iy, fy = int64(low[oy]), weight[oy]
            above, below = (plane * H + iy) * W, (plane * H + min(iy + 1, H - 1)) * W
            ox = column
            while ox < oW:
                ix, fx = int64(low[oH + ox]), weight[oH + ox]
                after = min(ix + 1, W - 1)
                upper = (one - fx) * x[above + ix] + fx * x[above + after]
                lower = (one - fx) * x[below + ix] + fx * x[below + after]
                y[row * oW + ox] = (one - fy) * upper + fy * lower
                ox += columns_on
            row += rows_on

    return bilinear


@typed_kernel(lambda T: (T[::1], T[::1], int32[::1], int64, int64, int64, int64, int64))
def _nearest_gradient_kernel(T):
    zero = T(0)

    def nearest_gradient(dx, dy, readers, planes, H, W, oH, oW):
        """A thread: the pixels at one column of some rows, each with its copies."""
        column, row = cuda.grid(2)
        columns_on, rows_on = cuda.gridsize(2)
        while row < planes * H:
            plane = row // H
            iy = row - plane * H
            first_y, end_y = int64(readers[iy]), int64(readers[H + iy])
            ix = column
            while ix < W:
                first_x, end_x = int64(readers[2 * H + ix]), int64(readers[2 * H + W + ix])
                total = zero
                for oy in range(first_y, end_y):
                    start = (plane * oH + oy) * oW
                    for at in range(start + first_x, start + end_x):
                        total += dy[at]
                dx[row * W + ix] = total
                ix += columns_on
            row += rows_on

    return nearest_gradient


@typed_kernel(lambda T: (T[::1], T[::1], int32[::1], int32[::1], T[::1], int64, int64, int64, int64, int64))
def _bilinear_gradient_kernel(T):
    zero, one = T(0), T(1)

    def bilinear_gradient(dx, dy, readers, low, weight, planes, H, W, oH, oW):
        """A thread: the pixels at one column of some rows, each with the outputs that it was mixed into.

        An output at the end reads the last pixel twice. Weights of 0 count: 0 * inf is NaN.
        """
        column, row = cuda.grid(2)
        columns_on, rows_on = cuda.gridsize(2)
        while row < planes * H:
            plane = row // H
            iy = row - plane * H
            first_y, end_y = int64(readers[iy]), int64(readers[H + iy])
            ix = column
            while ix < W:
                first_x, end_x = int64(readers[2 * H + ix]), int64(readers[2 * H + W + ix])
                total = zero
                for oy in range(first_y, end_y):
                    low_y, fy = int64(low[oy]), weight[oy]
                    is_low_y, is_high_y = low_y == iy, min(low_y + 1, H - 1) == iy
                    start = (plane * oH + oy) * oW
                    for ox in range(first_x, end_x):
                        low_x, fx, gradient = int64(low[oH + ox]), weight[oH + ox], dy[start + ox]
                        is_low_x, is_high_x = low_x == ix, min(low_x + 1, W - 1) == ix
                        if is_low_y and is_low_x:
                            total += (one - fy) * (one - fx) * gradient
                        if is_low_y and is_high_x:
                            total += (one - fy) * fx * gradient
                        if is_high_y and is_low_x:
                            total += fy * (one - fx) * gradient
                        if is_high_y and is_high_x:
                            total += fy * fx * gradient
                dx[row * W + ix] = total
                ix += columns_on
            row += rows_on

    return bilinear_gradient
