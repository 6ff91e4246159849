"""Transposed two-dimensional convolution: what the gradient of a convolution does, used as a layer that enlarges.

Each input pixel stamps the kernel, times its value, onto the output, and overlapping stamps add up:

    y[n, first + o, oy, ox] = bias[first + o] + sum of x[n, c, iy, ix] * weight[c, o, ky, kx]

    over all c, iy, ix, ky, kx for which   oy = iy * stride - padding + ky * dilation   (ox from ix and kx likewise)

``n`` numbers the pictures, ``c`` the input channels, ``o`` the output channels of one group, ``iy, ix`` the input
pixels, ``oy, ox`` the output pixels, ``ky, kx`` the kernel's cells. What is stamped outside the output is lost: here
``padding`` crops. ``output_padding`` adds rows below and columns to the right, since with a stride above 1 several
input sizes of a convolution give one output size. Input channel c belongs to group ``c // (C / groups)``, and ``first``
is the first output channel of that group.

Gradients. Each product has two factors, and the derivative with respect to one is the other:

    dx[n, c, iy, ix]        = sum of weight[c, o, ky, kx] * dy[n, first + o, oy, ox]   over all o, ky, kx
    dweight[c, o, ky, kx]   = sum of x[n, c, iy, ix] * dy[n, first + o, oy, ox]   over all n, iy, ix
    dbias[first + o]        = sum of dy[n, first + o, oy, ox]   over all n, oy, ox
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def conv_transpose2d_forward(x, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Stamp kernels onto a larger picture: the transpose of a convolution.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
        Pictures, float32 or float64.
    weight : ndarray, shape (C, O / groups, kH, kW)
        Kernels, of x's type. Input channels come first, unlike in a convolution.
    bias : ndarray, shape (O,), optional
        Added to each output channel.
    stride : int or pair of int
        Distance in output pixels between the stamps of neighbouring input pixels (vertical, horizontal).
    padding : int or pair of int
        Rows and columns cropped from each side of the output.
    output_padding : int or pair of int
        Rows added below and columns added to the right; less than the larger of stride and dilation.
    dilation : int or pair of int
        Distance in pixels between neighbouring cells of the kernel.
    groups : int
        Number of groups of channels; it divides C.

    Returns
    -------
    ndarray, shape (N, O, oH, oW)
        ``oH = (H - 1) * stride - 2 * padding + dilation * (kH - 1) + output_padding + 1``, and oW likewise.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not x's.
    ValueError
        If shapes or parameters do not fit each other, or nothing is left of the output.

    Notes
    -----
    Follows ``torch.nn.functional.conv_transpose2d``, except that ``dilation`` comes before ``groups``, as in `conv2d`.
    """
    x, weight, bias, g = checks.conv_transpose2d(x, weight, bias, stride, padding, output_padding, dilation, groups)
    y = np.zeros((g.N, g.O, g.oH, g.oW), x.dtype)
    if bias is not None:
        y += bias.reshape(1, g.O, 1, 1)
    _conv_transpose2d_kernel(y, x, weight, g)
    return y


def conv_transpose2d_backward(
    dy, x, weight, stride=1, padding=0, output_padding=0, dilation=1, groups=1, *, needs=(True, True, True)
):
    """Return the gradients of a transposed convolution.

    Parameters
    ----------
    dy : ndarray, shape (N, O, oH, oW)
        Gradient of the output.
    x, weight, stride, padding, output_padding, dilation, groups
        As given to `conv_transpose2d_forward`.
    needs : three bool
        Which of the gradients to compute: of x, weight and bias.

    Returns
    -------
    dx, dweight, dbias : ndarray or None
        Shapes (N, C, H, W), (C, O / groups, kH, kW) and (O,); None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d_forward`, and if dy has not the shape and type of the output.
    """
    dy, x, weight, g, needs = checks.conv_transpose2d_gradient(
        dy, x, weight, stride, padding, output_padding, dilation, groups, needs
    )
    dx = dweight = dbias = None
    if needs[0]:
        dx = np.zeros_like(x)
        _conv_transpose2d_dx_kernel(dx, dy, weight, g)
    if needs[1]:
        dweight = np.zeros_like(weight)
        _conv_transpose2d_dweight_kernel(dweight, dy, x, g)
    if needs[2]:
        dbias = np.zeros(g.O, x.dtype)
        _conv_transpose2d_dbias_kernel(dbias, dy, g)
    return dx, dweight, dbias


@jit
def _conv_transpose2d_kernel(y, x, weight, g):
    """Each input pixel adds the kernel, times its value, to the output pixels around it."""
    for n in range(g.N):
        for c in range(g.C):
            first = c // (g.C // g.groups) * (g.O // g.groups)
            for iy in range(g.H):
                for ix in range(g.W):
                    for o in range(g.O // g.groups):
                        for ky in range(g.kH):
                            for kx in range(g.kW):
                                oy = iy * g.sH - g.pH + ky * g.dH
                                ox = ix * g.sW - g.pW + kx * g.dW
                                if 0 <= oy < g.oH and 0 <= ox < g.oW:
                                    y[n, first + o, oy, ox] += x[n, c, iy, ix] * weight[c, o, ky, kx]


@jit
def _conv_transpose2d_dx_kernel(dx, dy, weight, g):
    """An input pixel collects the gradients beneath its stamp, each times the weight that it was stamped with."""
    for n in range(g.N):
        for c in range(g.C):
            first = c // (g.C // g.groups) * (g.O // g.groups)
            for iy in range(g.H):
                for ix in range(g.W):
                    for o in range(g.O // g.groups):
                        for ky in range(g.kH):
                            for kx in range(g.kW):
                                oy = iy * g.sH - g.pH + ky * g.dH
                                ox = ix * g.sW - g.pW + kx * g.dW
                                if 0 <= oy < g.oH and 0 <= ox < g.oW:
                                    dx[n, c, iy, ix] += weight[c, o, ky, kx] * dy[n, first + o, oy, ox]


@jit
def _conv_transpose2d_dweight_kernel(dweight, dy, x, g):
    """A weight collects the gradients of all outputs that it was stamped on, each times the pixel that was stamped."""
    for n in range(g.N):
        for c in range(g.C):
            first = c // (g.C // g.groups) * (g.O // g.groups)
            for iy in range(g.H):
                for ix in range(g.W):
                    for o in range(g.O // g.groups):
                        for ky in range(g.kH):
                            for kx in range(g.kW):
                                oy = iy * g.sH - g.pH + ky * g.dH
                                ox = ix * g.sW - g.pW + kx * g.dW
                                if 0 <= oy < g.oH and 0 <= ox < g.oW:
                                    dweight[c, o, ky, kx] += x[n, c, iy, ix] * dy[n, first + o, oy, ox]


@jit
def _conv_transpose2d_dbias_kernel(dbias, dy, g):
    """A channel's bias is added to all of its pixels, so it collects the gradients of all of them."""
    for n in range(g.N):
        for o in range(g.O):
            for oy in range(g.oH):
                for ox in range(g.oW):
                    dbias[o] += dy[n, o, oy, ox]
