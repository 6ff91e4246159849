"""Max-pooling. Forward, a thread takes one window after the other; those of a row side by side read neighbours.

Backward, a thread takes one pixel of the input and collects from the windows that may have found their maximum there:
no two threads write to one place, and the order of the sums is fixed. Which windows these are follows from the
pooling, which `max_pool2d_forward` notes on the indices that it returns; a short table tells for each row and each
column. Indices of another origin are read once before, for their range in each row and column of windows.
"""

from functools import lru_cache

import numpy as np
from numba.types import NamedUniTuple, int32, int64

from kernels import checks
from kernels.cuda.add import add_forward
from kernels.cuda.array import DeviceArray, empty, on_device, to_device, to_host
from kernels.cuda.device import cuda, kernel, typed_kernel

_GEOMETRY = NamedUniTuple(int64, len(checks.PoolGeometry._fields), checks.PoolGeometry)


class PooledIndices(DeviceArray):
    """Indices that a pooling returned, and its geometry.

    Parameters
    ----------
    indices : DeviceArray
        The indices.
    pooling : PoolGeometry
        The pooling.
    """

    def __init__(self, indices, pooling):
        super().__init__(indices.raw, indices.shape)
        self.pooling = pooling


def max_pool2d_forward(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Take the maximum of each window.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C, H, W)
        Pictures, float32 or float64.
    kernel_size : int or pair of int
        Height and width of a window, in pixels taken.
    stride : int or pair of int, optional
        Step in pixels from one window to the next; the kernel size if not given.
    padding : int or pair of int
        How far the first window starts outside the picture; at most half of a window.
    dilation : int or pair of int
        Distance between neighbouring pixels of a window.
    ceil_mode : bool
        Whether windows that reach beyond the picture's end are kept, as long as they start inside it.

    Returns
    -------
    y : DeviceArray, shape (N, C, oH, oW)
        The maxima.
    indices : DeviceArray of int64, shape (N, C, oH, oW)
        Where in its (H, W) plane each maximum stood, counted row by row.

    Raises
    ------
    TypeError
        If x has another type than float32 or float64.
    ValueError
        If parameters do not fit the picture.

    Notes
    -----
    Follows ``torch.nn.functional.max_pool2d`` with ``return_indices=True``.
    """
    x, g = checks.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
    (x,) = on_device(x)
    y = empty((g.N, g.C, g.oH, g.oW), x.dtype)
    indices = PooledIndices(empty(y.shape, np.int64), g)
    edge = g.kH if g.kH == g.kW and g.dH == g.dW == 1 and g.kH in _POOLINGS else 0
    _POOLINGS[edge].over_rows(g.N * g.C * g.oH, g.oW, y.raw, indices.raw, x.raw, g)
    return y, indices


def max_pool2d_backward(dy, indices, input_shape, onto=None):
    """Send each output's gradient to the pixel that was the maximum.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, C, oH, oW)
        Gradient of the output.
    indices : ndarray or DeviceArray of int, shape (N, C, oH, oW)
        As returned by `max_pool2d_forward`.
    input_shape : tuple of int
        Shape (N, C, H, W) of the pictures.
    onto : ndarray or DeviceArray, shape (N, C, H, W), optional
        What the gradient of the pictures is added to: that of other operators.

    Returns
    -------
    DeviceArray, shape (N, C, H, W)
        Gradient of the pictures, added to ``onto`` where that is given.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other, or an index lies outside the picture.

    Notes
    -----
    For indices that do not come from `max_pool2d_forward` on the device, this waits until they have been read there.
    """
    dy, indices, input_shape, onto = checks.max_pool2d_gradient(dy, indices, input_shape, onto)
    pooling = getattr(indices, "pooling", None)
    dy, indices = on_device(dy, indices)
    if pooling is not None and input_shape[2:] == (pooling.H, pooling.W):
        windows = _windows(*pooling[2:])
    else:
        windows = _windows_found(indices, input_shape)
    dx = empty(input_shape, dy.dtype)
    planes, sizes = input_shape[0] * input_shape[1], (*input_shape[2:], *dy.shape[2:])
    _max_pool2d_gradient_kernel.over_rows(
        planes * input_shape[2], input_shape[3], dx.raw, dy.raw, indices.raw, windows.raw, planes, *sizes
    )
    return dx if onto is None else add_forward(onto, dx)


# ---- which windows hold a pixel --------------------------------------------------------------------------------------


@lru_cache(maxsize=100)
def _windows(H, W, oH, oW, kH, kW, sH, sW, pH, pW, dH, dW):
    """Return the first window that may hold a pixel and the one after the last: H of each for the rows, W of each."""
    windows = empty((2 * (H + W),), np.int32)
    rows, columns = windows.raw[: 2 * H], windows.raw[2 * H : 2 * (H + W)]
    _windows_kernel.over(H, rows, H, oH, sH, pH, (kH - 1) * dH)
    _windows_kernel.over(W, columns, W, oW, sW, pW, (kW - 1) * dW)
    return windows


@kernel(lambda T: (int32[::1], int64, int64, int64, int64, int64))
def _windows_kernel(windows, pixels, count, stride, padding, reach):
    """A thread: one row of pixels, or one column."""
    for i in range(cuda.grid(1), pixels, cuda.gridsize(1)):
        windows[i] = max(0, (i + padding - reach + stride - 1) // stride)
        windows[pixels + i] = min(count - 1, (i + padding) // stride) + 1


def _windows_found(indices, input_shape):
    """Return what `_windows` does for any indices, which must lie inside a plane."""
    (H, W), (oH, oW) = input_shape[2:], indices.shape[2:]
    rows, columns = np.zeros((2, H), np.int32), np.zeros((2, W), np.int32)
    if indices.size:
        unknown = np.iinfo(np.int64).max
        low, high = np.full(oH + oW + 1, unknown), np.full(oH + oW + 1, -unknown)
        low, high = on_device(low, high)
        planes = indices.shape[0] * indices.shape[1]
        _reach_kernel.over_rows(planes * oH, oW, low.raw, high.raw, indices.raw, planes * oH, oH, oW, max(W, 1))
        low, high = to_host(low), to_host(high)
        checks.pooled_indices(low[-1], high[-1], input_shape)
        for windows, a, b in ((rows, low[:oH], high[:oH]), (columns, low[oH:-1], high[oH:-1])):
            for window in reversed(range(len(a))):
                windows[0, a[window] : b[window] + 1] = window
            for window in range(len(a)):
                windows[1, a[window] : b[window] + 1] = window + 1
    return to_device(np.concatenate((rows.reshape(-1), columns.reshape(-1))))


@kernel(lambda T: (int64[::1], int64[::1], int64[::1], int64, int64, int64, int64))
def _reach_kernel(low, high, indices, rows, oH, oW, W):
    """A thread: the least and the greatest row and column, and index, among windows of one column.

    Places in ``low`` and ``high``: the rows of windows, their columns, and all together. Minima have no order.
    """
    column, row = cuda.grid(2)
    columns_on, rows_on = cuda.gridsize(2)
    while row < rows:
        oy = row % oH
        ox = column
        while ox < oW:
            index = indices[row * oW + ox]
            iy, ix = index // W, index % W
            cuda.atomic.min(low, oy, iy)
            cuda.atomic.max(high, oy, iy)
            cuda.atomic.min(low, oH + ox, ix)
            cuda.atomic.max(high, oH + ox, ix)
            cuda.atomic.min(low, oH + oW, index)
            cuda.atomic.max(high, oH + oW, index)
            ox += columns_on
        row += rows_on


# ---- kernels ---------------------------------------------------------------------------------------------------------


def _pooling(name, edge):
    """Make the kernel of a pooling; of square windows without gaps if they have an ``edge``, known when it is compiled.

    The pixels of such a window, where it lies inside the picture, are all on their way before the first is needed.
    """
    taps, room = edge * edge, max(edge * edge, 1)

    def make(T):
        lowest = T(-np.inf)

        def pool(y, indices, x, g):
            """A thread: the windows at one column of some rows; it keeps the largest value so far."""
            column, row = cuda.grid(2)
            columns_on, rows_on = cuda.gridsize(2)
            while row < g.N * g.C * g.oH:
                plane = row // g.oH
                top = (row - plane * g.oH) * g.sH - g.pH
                ox = column
                while ox < g.oW:
                    left = ox * g.sW - g.pW
                    best, index = lowest, int64(-1)
                    if edge > 0 and top >= 0 and left >= 0 and top + edge <= g.H and left + edge <= g.W:
                        window = cuda.local.array(room, T)
                        for k in range(taps):
                            window[k] = x[(plane * g.H + top + k // edge) * g.W + left + k % edge]
                        for k in range(taps):
                            # NaN is larger than everything, and of several the last wins
                            if window[k] > best or window[k] != window[k] or index < 0:
                                best, index = window[k], (top + k // edge) * g.W + left + k % edge
                    else:
                        for ky in range(g.kH):
                            iy = top + ky * g.dH
                            if 0 <= iy < g.H:
                                for kx in range(g.kW):
                                    ix = left + kx * g.dW
                                    if 0 <= ix < g.W:
                                        value = x[(plane * g.H + iy) * g.W + ix]
                                        if value > best or value != value or index < 0:
                                            best, index = value, iy * g.W + ix
                    y[row * g.oW + ox] = best
                    indices[row * g.oW + ox] = index
                    ox += columns_on
                row += rows_on

        return pool

    make.__name__ = name
    return typed_kernel(lambda T: (T[::1], int64[::1], T[::1], _GEOMETRY))(make)


#: The kernels of poolings: those of networks by their edges, and the one for all others.
_POOLINGS = {2: _pooling("pool2", 2), 3: _pooling("pool3", 3), 0: _pooling("pool", 0)}


@typed_kernel(lambda T: (T[::1], T[::1], int64[::1], int32[::1], int64, int64, int64, int64, int64))
def _max_pool2d_gradient_kernel(T):
    zero = T(0)

    def max_pool2d_gradient(dx, dy, indices, windows, planes, H, W, oH, oW):
        """A thread: the pixels at one column of some rows, each with the windows around it."""
        column, row = cuda.grid(2)
        columns_on, rows_on = cuda.gridsize(2)
        while row < planes * H:
            plane = row // H
            iy = row - plane * H
            first_y, end_y = int64(windows[iy]), int64(windows[H + iy])
            ix = column
            while ix < W:
                first_x, end_x = int64(windows[2 * H + ix]), int64(windows[2 * H + W + ix])
                here, total = iy * W + ix, zero
                for oy in range(first_y, end_y):
                    start = (plane * oH + oy) * oW
                    for at in range(start + first_x, start + end_x):
                        if indices[at] == here:
                            total += dy[at]
                dx[row * W + ix] = total
                ix += columns_on
            row += rows_on

    return max_pool2d_gradient
