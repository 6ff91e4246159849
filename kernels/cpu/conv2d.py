"""Convolution: forward, and its gradients, by the algorithm that ``planner`` chooses."""

from typing import NamedTuple

import numpy as np

from kernels import checks
from kernels.cpu import (
    panel_convolution,
    panel_gradient,
    planner,
    point_convolution,
    point_gradient,
    point_pairs,
    point_spread,
    row_convolution,
    thin_convolution,
    thin_gradient,
    winograd,
    winograd_gradient,
)
from kernels.cpu.add import add_forward
from kernels.cpu.concat import concat_backward, concat_forward
from kernels.cpu.correlation import correlate
from kernels.cpu.packing import gather_axis, scatter_axis
from kernels.cpu.relu import relu_forward
from kernels.cpu.weight_gradient import channel_sums, weight_gradient


def conv2d_forward(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolve pictures with a kernel, as PyTorch's ``conv2d`` does (without turning the kernel round).

    ``y[n, o, oy, ox]`` is ``bias[o]`` plus the sum of ``weight[o, c, ky, kx] * x[n, c, iy, ix]`` over the input
    channels of o's group and over the kernel, where ``iy = stride * oy - padding + dilation * ky`` and likewise
    ``ix``; pixels outside the picture count as 0.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W), float32 or float64
        Pictures.
    weight : ndarray, shape (O, C / groups, kH, kW)
        Kernels, of the same type as ``x``.
    bias : ndarray, shape (O,), optional
        What is added to each output channel.
    stride, padding, dilation : int or (int, int)
        Pixels between two outputs, zeros around the picture, pixels between two taps; vertical, horizontal.
    groups : int
        Into how many independent groups the channels are divided.

    Returns
    -------
    ndarray, shape (N, O, oH, oW)
        ``oH = (H + 2 * padding - dilation * (kH - 1) - 1) // stride + 1``, and likewise ``oW``.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together, or the kernel is larger than the padded picture.
    """
    x, weight, bias, g = checks.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return gather(x, weight, bias, g, (g.oH, g.oW))


def conv2d_backward(dy, x, weight, stride=1, padding=0, dilation=1, groups=1, *, needs=(True, True, True)):
    """Return the gradients of a convolution.

    Parameters
    ----------
    dy : ndarray, shape (N, O, oH, oW)
        Gradient of the loss with respect to the output.
    x, weight, stride, padding, dilation, groups
        As they were given to ``conv2d_forward``.
    needs : (bool, bool, bool)
        Which of the gradients are wanted.

    Returns
    -------
    dx : ndarray or None, shape (N, C, H, W)
        Gradient with respect to ``x``.
    dweight : ndarray or None, shape (O, C / groups, kH, kW)
        Gradient with respect to ``weight``.
    dbias : ndarray or None, shape (O,)
        Gradient with respect to the bias.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together.
    """
    dy, x, weight, g, needs = checks.conv2d_gradient(dy, x, weight, stride, padding, dilation, groups, needs)
    dx = scatter(dy, weight, None, g, (g.H, g.W)) if needs[0] else None
    dweight = gradient(dy, x, weight.shape, g) if needs[1] else None
    dbias = channel_sums(dy) if needs[2] else None
    return dx, dweight, dbias


# ---- shared with conv_transpose2d ------------------------------------------------------------------------------------


class Ending(NamedTuple):
    """What happens to the result of a correlation: see ``conv_relu``."""

    scale: np.ndarray | None = None
    residual: np.ndarray | None = None
    relu: bool = False


_PLAIN = Ending()


def gather(x, weight, bias, g, size, ending=_PLAIN, more=None):
    """Return the convolution of ``x``, and ``more`` channels, with parameters ``g`` and an output of some ``size``."""
    weight = weight.reshape(g.groups, weight.shape[0] // g.groups, *weight.shape[1:])
    rows, cols = _gather_axes(g)
    return _correlate(x, weight, bias, size, rows, cols, ending, more)


def scatter(y, weight, bias, g, size, ending=_PLAIN, halves=False):
    """Return the adjoint of ``gather``: every output pixel of a convolution gives back to the pixels it was made of.

    With ``halves``, the two halves of its channels are arrays of their own: a pair.
    """
    weight = weight.reshape(g.groups, weight.shape[0] // g.groups, *weight.shape[1:]).swapaxes(1, 2)
    rows = scatter_axis(size[0], g.kH, g.sH, g.pH, g.dH)
    cols = scatter_axis(size[1], g.kW, g.sW, g.pW, g.dW)
    return _correlate(y, weight, bias, size, rows, cols, ending, halves=halves)


def gradient(dy, x, shape, g, more=None):
    """Return the gradient of a weight of shape ``shape`` in the convolution of ``x``, and ``more``, that gave ``y``."""
    axes = _gather_axes(g)
    empty = 0 in (*dy.shape, *x.shape)
    x_shape = _joined_shape(x, more)
    algorithm = "pixels" if empty else planner.choose_gradient(dy.dtype, dy.shape, x_shape, g.groups, *axes)
    if algorithm == "winograd":
        result = winograd_gradient.winograd_weight_gradient(dy, x, axes[0], axes[1], more)
        if result is not None:
            return result
    if more is not None:
        x = concat_forward([x, more])
    if algorithm == "channels":
        return panel_gradient.panel_weight_gradient(dy, x, *axes).reshape(shape)
    if algorithm == "points":
        return point_gradient.point_weight_gradient(dy, x, *axes).reshape(shape)
    if algorithm == "thin":
        return thin_gradient.thin_weight_gradient(dy, x, *axes)
    return weight_gradient(dy, x, g.groups, *axes).reshape(shape)


def _gather_axes(g):
    """Return which input rows and columns the outputs of a convolution meet."""
    return gather_axis(g.kH, g.sH, g.pH, g.dH), gather_axis(g.kW, g.sW, g.pW, g.dW)


def _joined_shape(x, more):
    """Return the shape of ``x`` with the channels of ``more``, of the same shape, unless that is None."""
    return x.shape if more is None else (x.shape[0], 2 * x.shape[1], *x.shape[2:])


def _correlate(x, weight, bias, size, rows, cols, ending, more=None, halves=False):
    """Return the correlation of ``x`` with ``weight``, (groups, out, in, kH, kW), by the algorithm that was planned."""
    empty = 0 in (x.shape[0], *weight.shape[1:3])
    x_shape = _joined_shape(x, more)
    algorithm = "pixels" if empty else planner.choose(x.dtype, x_shape, weight.shape, size, rows, cols)
    scale, residual, relu = ending
    if algorithm == "winograd":
        y = winograd.winograd_correlate(x, weight[0], bias, size, rows, cols, scale, residual, relu, more, halves)
        if y is not None:
            return y
    if algorithm == "rows":
        return row_convolution.row_correlate(x, weight, bias, size, rows, cols, scale, residual, relu, more, halves)
    if more is not None:  # the others neither read nor write two arrays
        x = concat_forward([x, more])
    y = _directly(algorithm, x, weight, bias, size, rows, cols, ending)
    return tuple(concat_backward(y, [y.shape[1] // 2] * 2)) if halves else y


def _directly(algorithm, x, weight, bias, size, rows, cols, ending):
    """Return what ``_correlate`` does, by one of the other algorithms."""
    scale, residual, relu = ending
    if algorithm == "points":
        if rows.step > 1:
            return point_spread.point_spread(x, weight[0], bias, scale, relu)
        if point_pairs.pays(x.dtype, weight.shape[1], size, rows, cols):
            return point_pairs.pair_correlate(x, weight[0], bias, size, scale, residual, relu)
        return point_convolution.point_correlate(x, weight[0], bias, size, rows, cols, scale, residual, relu)
    if scale is not None:
        weight = weight * scale.reshape(weight.shape[0], -1, 1, 1, 1)
    if algorithm == "channels":
        y = panel_convolution.panel_correlate(x, weight[0], bias, size, rows, cols)
        y = y if residual is None else add_forward(y, residual)
        return relu_forward(y) if relu else y
    if algorithm == "thin":
        return thin_convolution.thin_correlate(x, weight, bias, size, rows, cols, residual, relu)
    return correlate(x, weight, bias, size, rows, cols, residual, relu)
