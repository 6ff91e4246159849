"""Two-dimensional convolution (a cross-correlation, as every deep-learning library has it).

    y[n, o, oy, ox] = bias[o] + sum over c, ky, kx of weight[o, c, ky, kx] * x[n, first + c, iy, ix]

    iy = oy * stride - padding + ky * dilation        (ix from ox and kx likewise)

Outside the picture x counts as 0: that is the padding. ``n`` numbers the pictures, ``o`` the output channels, ``c`` the
input channels of one group, ``oy, ox`` the output pixels, ``iy, ix`` the input pixels, ``ky, kx`` the kernel's cells.
With ``groups`` above 1 the channels fall into that many groups which do not see each other: output channel o belongs to
group ``o // (O / groups)``, and ``first`` is the first input channel of that group.

Gradients. The loss depends on an input pixel through every output that read it, and each product above has two factors,
so the derivative with respect to one factor is the other. With ``dy`` the gradient of the loss with respect to y:

    dx[n, first + c, iy, ix]  = sum of weight[o, c, ky, kx] * dy[n, o, oy, ox]   over all outputs that read this pixel
    dweight[o, c, ky, kx]     = sum of x[n, first + c, iy, ix] * dy[n, o, oy, ox]   over all n, oy, ox
    dbias[o]                  = sum of dy[n, o, oy, ox]   over all n, oy, ox

The gradient kernels walk through the same products as the forward one, and add to where each product came from.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def conv2d_forward(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolve pictures with a bank of kernels.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
        Pictures, float32 or float64.
    weight : ndarray, shape (O, C / groups, kH, kW)
        Kernels, of x's type.
    bias : ndarray, shape (O,), optional
        Added to each output channel.
    stride : int or pair of int
        Step in pixels from one output pixel to the next (vertical, horizontal).
    padding : int or pair of int
        Rows and columns of zeros around the picture, on each side.
    dilation : int or pair of int
        Distance in pixels between neighbouring cells of the kernel.
    groups : int
        Number of groups of channels; it divides C and O.

    Returns
    -------
    ndarray, shape (N, O, oH, oW)
        ``oH = (H + 2 * padding - dilation * (kH - 1) - 1) // stride + 1``, and oW likewise.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not x's.
    ValueError
        If shapes or parameters do not fit each other, or the kernel is larger than the padded picture.

    Notes
    -----
    Follows ``torch.nn.functional.conv2d``. Dumoulin and Visin, "A guide to convolution arithmetic for deep learning"
    (arXiv:1603.07285), draws stride, padding and dilation.
    """
    x, weight, bias, g = checks.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if bias is None:
        bias = np.zeros(g.O, x.dtype)
    y = np.empty((g.N, g.O, g.oH, g.oW), x.dtype)
    _conv2d_kernel(y, x, weight, bias, g)
    return y


def conv2d_backward(dy, x, weight, stride=1, padding=0, dilation=1, groups=1, *, needs=(True, True, True)):
    """Return the gradients of a convolution.

    Parameters
    ----------
    dy : ndarray, shape (N, O, oH, oW)
        Gradient of the output.
    x, weight, stride, padding, dilation, groups
        As given to `conv2d_forward`.
    needs : three bool
        Which of the gradients to compute: of x, weight and bias.

    Returns
    -------
    dx, dweight, dbias : ndarray or None
        Shapes (N, C, H, W), (O, C / groups, kH, kW) and (O,); None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `conv2d_forward`, and if dy has not the shape and type of the output.
    """
    dy, x, weight, g, needs = checks.conv2d_gradient(dy, x, weight, stride, padding, dilation, groups, needs)
    dx = dweight = dbias = None
    if needs[0]:
        dx = np.zeros_like(x)
        _conv2d_dx_kernel(dx, dy, weight, g)
    if needs[1]:
        dweight = np.zeros_like(weight)
        _conv2d_dweight_kernel(dweight, dy, x, g)
    if needs[2]:
        dbias = np.zeros(g.O, x.dtype)
        _conv2d_dbias_kernel(dbias, dy, g)
    return dx, dweight, dbias


@jit
def _conv2d_kernel(y, x, weight, bias, g):
    """Each output pixel: the bias, plus kernel times the patch of x beneath it."""
    for n in range(g.N):
        for o in range(g.O):
            first = o // (g.O // g.groups) * (g.C // g.groups)
            for oy in range(g.oH):
                for ox in range(g.oW):
                    total = bias[o]
                    for c in range(g.C // g.groups):
                        for ky in range(g.kH):
                            for kx in range(g.kW):
                                iy = oy * g.sH - g.pH + ky * g.dH
                                ix = ox * g.sW - g.pW + kx * g.dW
                                if 0 <= iy < g.H and 0 <= ix < g.W:
                                    total += weight[o, c, ky, kx] * x[n, first + c, iy, ix]
                    y[n, o, oy, ox] = total


@jit
def _conv2d_dx_kernel(dx, dy, weight, g):
    """Each output sends its gradient back to the pixels it read, times the weight it read them with."""
    for n in range(g.N):
        for o in range(g.O):
            first = o // (g.O // g.groups) * (g.C // g.groups)
            for oy in range(g.oH):
                for ox in range(g.oW):
                    for c in range(g.C // g.groups):
                        for ky in range(g.kH):
                            for kx in range(g.kW):
                                iy = oy * g.sH - g.pH + ky * g.dH
                                ix = ox * g.sW - g.pW + kx * g.dW
                                if 0 <= iy < g.H and 0 <= ix < g.W:
                                    dx[n, first + c, iy, ix] += weight[o, c, ky, kx] * dy[n, o, oy, ox]


@jit
def _conv2d_dweight_kernel(dweight, dy, x, g):
    """Each output sends its gradient back to the weights it used, times the pixel that each was multiplied with."""
    for n in range(g.N):
        for o in range(g.O):
            first = o // (g.O // g.groups) * (g.C // g.groups)
            for oy in range(g.oH):
                for ox in range(g.oW):
                    for c in range(g.C // g.groups):
                        for ky in range(g.kH):
                            for kx in range(g.kW):
                                iy = oy * g.sH - g.pH + ky * g.dH
                                ix = ox * g.sW - g.pW + kx * g.dW
                                if 0 <= iy < g.H and 0 <= ix < g.W:
                                    dweight[o, c, ky, kx] += x[n, first + c, iy, ix] * dy[n, o, oy, ox]


@jit
def _conv2d_dbias_kernel(dbias, dy, g):
    """A channel's bias is added to all of its pixels, so it collects the gradients of all of them."""
    for n in range(g.N):
        for o in range(g.O):
            for oy in range(g.oH):
                for ox in range(g.oW):
                    dbias[o] += dy[n, o, oy, ox]
