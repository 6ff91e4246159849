"""RoIPool: the largest value of each bin of each region of interest (Girshick, Fast R-CNN, arXiv:1504.08083).

A box is moved onto the cells of the feature map: its corners are scaled and rounded, halves away from zero.

    start, end = round(x1 * spatial_scale), round(x2 * spatial_scale)
    size       = max(end - start + 1, 1)                the end cell belongs to the box; a reversed box is one cell
    bin        = size / output size
    cells of p = start + floor(p * bin) up to, without, start + ceil((p + 1) * bin)

and likewise vertically. Neighbouring bins may share cells; cells outside the map do not take part.

    y[k, c, py, px] = max of x[n, c, iy, ix] over the cells of bin (py, px),    n the RoI's picture

The arithmetic of coordinates is done in the type of x and in the order above: another order, or another precision,
can move the edge of a bin by a cell.

``argmax`` remembers where each maximum stood, as ``iy * W + ix``. The first of equal values wins; NaN never wins. A bin
without cells gives 0 and -1. The search starts at the least float32, so that a bin that holds only NaN or -inf gives
-3.4028235e38 and -1, in float64 too.

Gradient. Each output passes its gradient to the one cell that it took; those with -1 pass nothing. The boxes get none.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit

LOWEST = -float(np.finfo(np.float32).max)


def roi_pool_forward(x, rois, output_size, spatial_scale=1.0):
    """Take the maximum of each bin of each box.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
        Feature maps, float32 or float64.
    rois : ndarray, shape (K, 5)
        Batch index, x1, y1, x2, y2 of each box, in picture coordinates; of x's type.
    output_size : int or pair of int
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.

    Returns
    -------
    y : ndarray, shape (K, C, oH, oW)
        The maxima.
    argmax : ndarray of int32, shape (K, C, oH, oW)
        Where in its (H, W) plane each maximum stood, counted row by row; -1 where there is none.

    Raises
    ------
    TypeError
        If x or rois has another type than float32 or float64, or they differ.
    ValueError
        If a shape or parameter does not fit, a coordinate is not finite, or a batch index is not that of a picture.

    Notes
    -----
    Follows ``torchvision.ops.roi_pool``.
    """
    x, rois, (oh, ow), spatial_scale = checks.roi_pool(x, rois, output_size, spatial_scale)
    y = np.empty((len(rois), x.shape[1], oh, ow), x.dtype)
    argmax = np.empty(y.shape, np.int32)
    if y.size:
        _roi_pool_kernel(y, argmax, x, rois, spatial_scale)
    return y, argmax


def roi_pool_backward(dy, rois, argmax, input_shape):
    """Send each output's gradient to the cell that was the maximum.

    Parameters
    ----------
    dy : ndarray, shape (K, C, oH, oW)
        Gradient of the output.
    rois : ndarray, shape (K, 5)
        As given to `roi_pool_forward`.
    argmax : ndarray of int, shape (K, C, oH, oW)
        As returned by it.
    input_shape : tuple of int
        Shape (N, C, H, W) of the feature maps.

    Returns
    -------
    ndarray, shape (N, C, H, W)
        Gradient of the feature maps.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other, or an index lies outside the map.
    """
    dy, rois, argmax, input_shape = checks.roi_pool_gradient(dy, rois, argmax, input_shape)
    dx = np.zeros(input_shape, dy.dtype)
    _roi_pool_gradient_kernel(dx, dy, rois, argmax)
    return dx


@jit
def _round(value):
    """Round to a whole number, halves away from zero; ``value + 0.5`` could itself be rounded up."""
    whole = np.trunc(value)
    if abs(value - whole) >= type(value)(0.5):
        whole += np.copysign(type(value)(1), value)
    return whole


@jit
def _place(low, high, spatial_scale, bins):
    """Return the first cell of a box along one axis, and the size of its bins."""
    start, end = np.float64(_round(low * spatial_scale)), np.float64(_round(high * spatial_scale))
    size = max(end - start + 1.0, 1.0)
    return start, type(low)(size) / type(low)(bins)


@jit
def _cells(start, bin_size, p, size):
    """Return the first cell of bin ``p``, and the one after its last, within a map of ``size`` cells."""
    T = type(bin_size)
    first = start + np.float64(np.floor(T(p) * bin_size))
    end = start + np.float64(np.ceil(T(p + 1) * bin_size))
    # still floats: huge ones have no whole number
    return int(min(max(first, 0.0), np.float64(size))), int(min(max(end, 0.0), np.float64(size)))


@jit
def _roi_pool_kernel(y, argmax, x, rois, spatial_scale):
    """Look at a bin's cells in turn and keep the largest so far."""
    K, C, oH, oW = y.shape
    H, W = x.shape[2:]
    for k in range(K):
        n = int(rois[k, 0])
        left, bin_width = _place(rois[k, 1], rois[k, 3], spatial_scale, oW)
        top, bin_height = _place(rois[k, 2], rois[k, 4], spatial_scale, oH)
        for c in range(C):
            for py in range(oH):
                for px in range(oW):
                    y0, y1 = _cells(top, bin_height, py, H)
                    x0, x1 = _cells(left, bin_width, px, W)
                    empty = y1 <= y0 or x1 <= x0
                    largest = x.dtype.type(0.0 if empty else LOWEST)
                    index = -1
                    for iy in range(y0, y1):
                        for ix in range(x0, x1):
                            if x[n, c, iy, ix] > largest:
                                largest = x[n, c, iy, ix]
                                index = iy * W + ix
                    y[k, c, py, px] = largest
                    argmax[k, c, py, px] = index


@jit
def _roi_pool_gradient_kernel(dx, dy, rois, argmax):
    """Add each output's gradient to the cell at its index."""
    K, C, oH, oW = dy.shape
    W = dx.shape[3]
    for k in range(K):
        n = int(rois[k, 0])
        for c in range(C):
            for py in range(oH):
                for px in range(oW):
                    index = argmax[k, c, py, px]
                    if index >= 0:
                        dx[n, c, index // W, index % W] += dy[k, c, py, px]
