"""Resizing of pictures, up or down, by the nearest pixel or by bilinear interpolation.

``step`` is the distance in input pixels from one output pixel to the next: ``H / oH``, or ``1 / scale_factor`` where
that was given, or ``(H - 1) / (oH - 1)`` if the centres of the corners are to meet (``align_corners``). Along one axis,
output pixel oy reads

    nearest:    input pixel   iy = min(floor(oy * step), H - 1)
    bilinear:   position      (oy + 1/2) * step - 1/2   (at least 0), or   oy * step   with align_corners

Pixels are little squares, and their centres lie at one half: hence the halves. A position lies between two pixels,
``low`` and ``high``, a fraction f of the way from one to the other; in two dimensions there are four neighbours, and

    y[oy, ox] = (1 - fy) * ((1 - fx) * x[low_y, low_x] + fx * x[low_y, high_x])
              +      fy  * ((1 - fx) * x[high_y, low_x] + fx * x[high_y, high_x])

Gradient. y is a weighted sum of pixels, so each pixel collects dy times its weight, over all outputs that read it.

PyTorch's conventions: the nearest pixel is found in float32 whatever the array's type, bilinear positions are computed
in the array's own type.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def upsample2d_forward(x, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Resize pictures.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
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
    ndarray, shape (N, C, oH, oW)
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
    y = np.empty((g.N, g.C, g.oH, g.oW), x.dtype)
    if mode == "nearest":
        _nearest_kernel(y, x, g)
    else:
        _bilinear_kernel(y, x, g, bool(align_corners))
    return y


def upsample2d_backward(dy, input_shape, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Return the gradient of resizing.

    Parameters
    ----------
    dy : ndarray, shape (N, C, oH, oW)
        Gradient of the output.
    input_shape : tuple of int
        Shape (N, C, H, W) of the pictures.
    size, scale_factor, mode, align_corners
        As given to `upsample2d_forward`.

    Returns
    -------
    ndarray, shape (N, C, H, W)
        Gradient of the pictures.

    Raises
    ------
    TypeError, ValueError
        As `upsample2d_forward`, and if dy has not the shape of the output.
    """
    dy, g = checks.upsample2d_gradient(dy, input_shape, size, scale_factor, mode, align_corners)
    dx = np.zeros((g.N, g.C, g.H, g.W), dy.dtype)
    if mode == "nearest":
        _nearest_gradient_kernel(dx, dy, g)
    else:
        _bilinear_gradient_kernel(dx, dy, g, bool(align_corners))
    return dx


@jit
def _nearest(position, step, size):
    """Return the input pixel that an output pixel reads."""
    return min(int(np.floor(np.float32(position) * np.float32(step))), size - 1)


@jit
def _nearest_kernel(y, x, g):
    """Copy each output pixel from its nearest input pixel."""
    for n in range(g.N):
        for c in range(g.C):
            for oy in range(g.oH):
                for ox in range(g.oW):
                    iy = _nearest(oy, g.step_h, g.H)
                    ix = _nearest(ox, g.step_w, g.W)
                    y[n, c, oy, ox] = x[n, c, iy, ix]


@jit
def _nearest_gradient_kernel(dx, dy, g):
    """An input pixel collects the gradients of its copies."""
    for n in range(g.N):
        for c in range(g.C):
            for oy in range(g.oH):
                for ox in range(g.oW):
                    iy = _nearest(oy, g.step_h, g.H)
                    ix = _nearest(ox, g.step_w, g.W)
                    dx[n, c, iy, ix] += dy[n, c, oy, ox]


@jit
def _position(output_pixel, step, half, align_corners):
    """Return where an output pixel lies among the input pixels; all arguments have the array's type."""
    if align_corners:
        return output_pixel * step
    position = (output_pixel + half) * step - half
    if position < 0:
        return half - half
    return position


@jit
def _bilinear_kernel(y, x, g, align_corners):
    """Mix the four pixels around each output pixel's position."""
    half, one = x.dtype.type(0.5), x.dtype.type(1)
    step_h, step_w = x.dtype.type(g.step_h), x.dtype.type(g.step_w)
    for n in range(g.N):
        for c in range(g.C):
            for oy in range(g.oH):
                for ox in range(g.oW):
                    py = _position(x.dtype.type(oy), step_h, half, align_corners)
                    px = _position(x.dtype.type(ox), step_w, half, align_corners)
                    low_y, low_x = min(int(py), g.H - 1), min(int(px), g.W - 1)
                    high_y, high_x = min(low_y + 1, g.H - 1), min(low_x + 1, g.W - 1)
                    fy, fx = min(py - x.dtype.type(low_y), one), min(px - x.dtype.type(low_x), one)
                    upper = (one - fx) * x[n, c, low_y, low_x] + fx * x[n, c, low_y, high_x]
                    lower = (one - fx) * x[n, c, high_y, low_x] + fx * x[n, c, high_y, high_x]
                    y[n, c, oy, ox] = (one - fy) * upper + fy * lower


@jit
def _bilinear_gradient_kernel(dx, dy, g, align_corners):
    """Each output sends its gradient to the four pixels it mixed, times the weight of each."""
    half, one = dy.dtype.type(0.5), dy.dtype.type(1)
    step_h, step_w = dy.dtype.type(g.step_h), dy.dtype.type(g.step_w)
    for n in range(g.N):
        for c in range(g.C):
            for oy in range(g.oH):
                for ox in range(g.oW):
                    py = _position(dy.dtype.type(oy), step_h, half, align_corners)
                    px = _position(dy.dtype.type(ox), step_w, half, align_corners)
                    low_y, low_x = min(int(py), g.H - 1), min(int(px), g.W - 1)
                    high_y, high_x = min(low_y + 1, g.H - 1), min(low_x + 1, g.W - 1)
                    fy, fx = min(py - dy.dtype.type(low_y), one), min(px - dy.dtype.type(low_x), one)
                    dx[n, c, low_y, low_x] += (one - fy) * (one - fx) * dy[n, c, oy, ox]
                    dx[n, c, low_y, high_x] += (one - fy) * fx * dy[n, c, oy, ox]
                    dx[n, c, high_y, low_x] += fy * (one - fx) * dy[n, c, oy, ox]
                    dx[n, c, high_y, high_x] += fy * fx * dy[n, c, oy, ox]
