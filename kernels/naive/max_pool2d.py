"""Max-pooling: the largest value of each window.

    y[n, c, oy, ox] = max over ky, kx of x[n, c, iy, ix]

    iy = oy * stride - padding + ky * dilation        (ix from ox and kx likewise)

Pixels outside the picture do not take part. ``indices`` remembers where each maximum stood, as ``iy * W + ix``: the
first place wins a tie; NaN counts as larger than everything, and of several the last wins; a window of only -inf gives
its first pixel inside the picture. All this is PyTorch's convention.

Gradient. y is one of the values of x, so its gradient goes to that one pixel; where windows overlap, a pixel that was
the maximum of several collects from each:

    dx[n, c, iy, ix] = sum of dy[n, c, oy, ox]   over the windows whose index is iy * W + ix
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def max_pool2d_forward(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Take the maximum of each window.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
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
    y : ndarray, shape (N, C, oH, oW)
        The maxima.
    indices : ndarray of int64, shape (N, C, oH, oW)
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
    y = np.empty((g.N, g.C, g.oH, g.oW), x.dtype)
    indices = np.empty(y.shape, np.int64)
    _max_pool2d_kernel(y, indices, x, g)
    return y, indices


def max_pool2d_backward(dy, indices, input_shape, onto=None):
    """Send each output's gradient to the pixel that was the maximum.

    Parameters
    ----------
    dy : ndarray, shape (N, C, oH, oW)
        Gradient of the output.
    indices : ndarray of int, shape (N, C, oH, oW)
        As returned by `max_pool2d_forward`.
    input_shape : tuple of int
        Shape (N, C, H, W) of the pictures.
    onto : ndarray, shape (N, C, H, W), optional
        What the gradient of the pictures is added to: that of other operators.

    Returns
    -------
    ndarray, shape (N, C, H, W)
        Gradient of the pictures, added to ``onto`` where that is given.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other, or an index lies outside the picture.
    """
    dy, indices, input_shape, onto = checks.max_pool2d_gradient(dy, indices, input_shape, onto)
    dx = np.zeros(input_shape, dy.dtype)
    _max_pool2d_gradient_kernel(dx, dy, indices)
    return dx if onto is None else onto + dx


@jit
def _max_pool2d_kernel(y, indices, x, g):
    """Look at a window's pixels in turn and keep the largest so far."""
    for n in range(g.N):
        for c in range(g.C):
            for oy in range(g.oH):
                for ox in range(g.oW):
                    index = -1
                    for ky in range(g.kH):
                        for kx in range(g.kW):
                            iy = oy * g.sH - g.pH + ky * g.dH
                            ix = ox * g.sW - g.pW + kx * g.dW
                            if 0 <= iy < g.H and 0 <= ix < g.W:
                                value = x[n, c, iy, ix]
                                if index == -1 or value > y[n, c, oy, ox] or np.isnan(value):
                                    y[n, c, oy, ox] = value
                                    index = iy * g.W + ix
                    indices[n, c, oy, ox] = index


@jit
def _max_pool2d_gradient_kernel(dx, dy, indices):
    """Add each output's gradient to the pixel at its index."""
    N, C, oH, oW = dy.shape
    W = dx.shape[3]
    for n in range(N):
        for c in range(C):
            for oy in range(oH):
                for ox in range(oW):
                    index = indices[n, c, oy, ox]
                    dx[n, c, index // W, index % W] += dy[n, c, oy, ox]
