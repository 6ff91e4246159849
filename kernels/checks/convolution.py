"""Checks of convolutions and of the matrix product."""

from typing import NamedTuple

from kernels.checks.arguments import array, divides, has_pixels, integer, pair, same_shape, three_flags


class ConvGeometry(NamedTuple):
    """Sizes and parameters of a convolution: ``C`` and ``H, W`` of its input, ``O`` and ``oH, oW`` of its output.

    A transposed convolution has the same fields: its input is ``C, H, W`` too, and ``kH, kW`` are its kernel's.
    """

    N: int
    C: int
    H: int
    W: int
    O: int
    oH: int
    oW: int
    kH: int
    kW: int
    sH: int
    sW: int
    pH: int
    pW: int
    dH: int
    dW: int
    groups: int


def _conv2d_geometry(x_shape, weight_shape, stride, padding, dilation, groups):
    n, c, h, w = x_shape
    o, c_per_group, kh, kw = weight_shape
    (sh, sw), (ph, pw) = pair("stride", stride, 1), pair("padding", padding, 0)
    (dh, dw), groups = pair("dilation", dilation, 1), integer("groups", groups, 1)
    divides(groups, c, "input channels")
    divides(groups, o, "output channels")
    if c_per_group * groups != c:
        raise ValueError(
            f"weight has shape {tuple(weight_shape)}, for {c_per_group * groups} input channels in {groups} group(s); "
            f"x has {c} channels"
        )
    if kh < 1 or kw < 1:
        raise ValueError(f"weight has shape {tuple(weight_shape)}; expected a kernel of at least 1x1")
    has_pixels("x", x_shape)
    reach_h, reach_w = dh * (kh - 1) + 1, dw * (kw - 1) + 1
    if reach_h > h + 2 * ph or reach_w > w + 2 * pw:
        raise ValueError(
            f"the kernel covers {reach_h}x{reach_w} pixels (dilation included), more than the padded picture's "
            f"{h + 2 * ph}x{w + 2 * pw}"
        )
    oh, ow = (h + 2 * ph - reach_h) // sh + 1, (w + 2 * pw - reach_w) // sw + 1
    return ConvGeometry(n, c, h, w, o, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, groups)


def conv2d(x, weight, bias, stride, padding, dilation, groups, joined=1):
    """Return ``x, weight, bias, geometry`` of a valid convolution of ``joined`` inputs like ``x``."""
    x = array("x", x, 4)
    weight = array("weight", weight, 4, x.dtype)
    shape = x.shape[0], joined * x.shape[1], *x.shape[2:]
    g = _conv2d_geometry(shape, weight.shape, stride, padding, dilation, groups)
    if bias is not None:
        bias = same_shape("bias", array("bias", bias, 1, x.dtype), (g.O,), "one value per output channel")
    return x, weight, bias, g


def conv2d_gradient(dy, x, weight, stride, padding, dilation, groups, needs, joined=1):
    """Return ``dy, x, weight, geometry, needs`` of a valid backward call for ``joined`` inputs like ``x``."""
    x, weight, _, g = conv2d(x, weight, None, stride, padding, dilation, groups, joined)
    dy = array("dy", dy, 4, x.dtype)
    same_shape("dy", dy, (g.N, g.O, g.oH, g.oW), "the shape of the output")
    return dy, x, weight, g, three_flags("needs", needs)


def _conv_transpose2d_geometry(x_shape, weight_shape, stride, padding, output_padding, dilation, groups):
    n, c, h, w = x_shape
    c_weight, o_per_group, kh, kw = weight_shape
    (sh, sw), (ph, pw) = pair("stride", stride, 1), pair("padding", padding, 0)
    (dh, dw), groups = pair("dilation", dilation, 1), integer("groups", groups, 1)
    oph, opw = pair("output_padding", output_padding, 0)
    divides(groups, c, "input channels")
    if c_weight != c:
        raise ValueError(f"weight has shape {tuple(weight_shape)}, for {c_weight} input channels; x has {c} channels")
    if kh < 1 or kw < 1 or o_per_group < 1:
        raise ValueError(f"weight has shape {tuple(weight_shape)}; expected sizes of at least 1")
    if oph >= max(sh, dh) or opw >= max(sw, dw):
        raise ValueError(
            f"output_padding is {(oph, opw)}; expected less than the larger of stride {(sh, sw)} and "
            f"dilation {(dh, dw)} on each axis"
        )
    has_pixels("x", x_shape)
    oh = (h - 1) * sh - 2 * ph + dh * (kh - 1) + oph + 1
    ow = (w - 1) * sw - 2 * pw + dw * (kw - 1) + opw + 1
    if oh < 1 or ow < 1:
        raise ValueError(f"the output would be {oh}x{ow}; padding {(ph, pw)} is too large for this picture and kernel")
    return ConvGeometry(n, c, h, w, o_per_group * groups, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, groups)


def conv_transpose2d(x, weight, bias, stride, padding, output_padding, dilation, groups):
    """Return ``x, weight, bias, geometry`` of a valid transposed convolution."""
    x = array("x", x, 4)
    weight = array("weight", weight, 4, x.dtype)
    g = _conv_transpose2d_geometry(x.shape, weight.shape, stride, padding, output_padding, dilation, groups)
    if bias is not None:
        bias = same_shape("bias", array("bias", bias, 1, x.dtype), (g.O,), "one value per output channel")
    return x, weight, bias, g


def conv_transpose2d_gradient(dy, x, weight, stride, padding, output_padding, dilation, groups, needs):
    """Return ``dy, x, weight, geometry, needs`` of a valid backward call."""
    x, weight, _, g = conv_transpose2d(x, weight, None, stride, padding, output_padding, dilation, groups)
    dy = array("dy", dy, 4, x.dtype)
    same_shape("dy", dy, (g.N, g.O, g.oH, g.oW), "the shape of the output")
    return dy, x, weight, g, three_flags("needs", needs)


def linear(x, weight, bias):
    """Return ``x, weight, bias``: (N, in), (out, in) and (out,)."""
    x = array("x", x, 2)
    weight = array("weight", weight, 2, x.dtype)
    if weight.shape[1] != x.shape[1]:
        raise ValueError(f"weight has shape {weight.shape}, for {weight.shape[1]} features; x has {x.shape[1]}")
    if bias is not None:
        bias = same_shape("bias", array("bias", bias, 1, x.dtype), weight.shape[:1], "one value per output feature")
    return x, weight, bias


def linear_gradient(dy, x, weight, needs):
    """Return ``dy, x, weight, needs``."""
    x, weight, _ = linear(x, weight, None)
    dy = array("dy", dy, 2, x.dtype)
    same_shape("dy", dy, (x.shape[0], weight.shape[0]), "the shape of the output")
    return dy, x, weight, three_flags("needs", needs)
