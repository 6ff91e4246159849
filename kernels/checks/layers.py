"""Checks of normalisation, pooling and resizing."""

from typing import NamedTuple

import numpy as np

from kernels.checks.arguments import array, has_pixels, index_array, is_on_device, number, pair, same_shape, shape


def _per_channel(name, a, x):
    if a is None:
        return None
    return same_shape(name, array(name, a, 1, x.dtype), x.shape[1:2], "one value per channel of x")


def _running(name, a, x, written):
    if a is None:
        return None
    checked = _per_channel(name, a, x)
    if written and not is_on_device(a) and not (a.flags.writeable and a.flags.c_contiguous and a.dtype.isnative):
        raise ValueError(
            f"{name} is read-only, not contiguous or of foreign byte order; in training it is updated in place"
        )
    return checked


def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum, eps):
    """Return ``x, gamma, beta, running_mean, running_var, training, momentum, eps``."""
    x = array("x", x, 4)
    training = bool(training)
    gamma, beta = _per_channel("gamma", gamma, x), _per_channel("beta", beta, x)
    if (running_mean is None) != (running_var is None):
        raise ValueError("one of running_mean and running_var is None; expected both or neither")
    if running_mean is None and not training:
        raise ValueError("running_mean and running_var are None; expected arrays when training is False")
    running_mean = _running("running_mean", running_mean, x, training)
    running_var = _running("running_var", running_var, x, training)
    if training and x.shape[0] and x.shape[0] * x.shape[2] * x.shape[3] == 1:
        raise ValueError(f"x has shape {x.shape}: one value per channel has no variance; expected more in training")
    return (
        x,
        gamma,
        beta,
        running_mean,
        running_var,
        training,
        number("momentum", momentum),
        number("eps", eps, 0),
    )


def batch_norm_gradient(dy, x, gamma, mean, inv_std, training):
    """Return ``dy, x, gamma, mean, inv_std, training``."""
    x = array("x", x, 4)
    dy = same_shape("dy", array("dy", dy, 4, x.dtype), x.shape, "the shape of x")
    mean, inv_std = _per_channel("mean", mean, x), _per_channel("inv_std", inv_std, x)
    if mean is None or inv_std is None:
        raise TypeError("mean or inv_std is None; expected the arrays that batch_norm_forward returned")
    return dy, x, _per_channel("gamma", gamma, x), mean, inv_std, bool(training)


def like_x(name, a, x):
    """Return ``a``, which has the type and shape of the checked ``x``; or None."""
    return None if a is None else same_shape(name, array(name, a, 4, x.dtype), x.shape, "the shape of x")


def batch_norm_relu_gradient(dy, x, statistics, y):
    """Return ``dy, x, statistics, y``."""
    x = array("x", x, 4)
    dy = same_shape("dy", array("dy", dy, 4, x.dtype), x.shape, "the shape of x")
    statistics = array("statistics", statistics, 2, np.float64)
    same_shape("statistics", statistics, (x.shape[1], 8), "what batch_norm_relu_forward returned")
    return dy, x, statistics.copy(), like_x("y", y, x)


class PoolGeometry(NamedTuple):
    """Sizes and parameters of a pooling."""

    N: int
    C: int
    H: int
    W: int
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


def _pooled_size(size, k, s, p, d, ceil_mode):
    span = size + 2 * p - d * (k - 1) - 1
    out = (span + (s - 1 if ceil_mode else 0)) // s + 1
    # PyTorch: the last window must start inside the picture or its left padding
    if ceil_mode and (out - 1) * s >= size + p:
        out -= 1
    return out


def max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Return ``x, geometry``."""
    x = array("x", x, 4)
    n, c, h, w = x.shape
    has_pixels("x", x.shape)
    kh, kw = pair("kernel_size", kernel_size, 1)
    sh, sw = (kh, kw) if stride is None else pair("stride", stride, 1)
    (ph, pw), (dh, dw) = pair("padding", padding, 0), pair("dilation", dilation, 1)
    if ph > (dh * (kh - 1) + 1) // 2 or pw > (dw * (kw - 1) + 1) // 2:
        raise ValueError(f"padding is {(ph, pw)}; expected at most half of the kernel's reach, {(kh, kw)} dilated")
    oh, ow = _pooled_size(h, kh, sh, ph, dh, ceil_mode), _pooled_size(w, kw, sw, pw, dw, ceil_mode)
    if oh < 1 or ow < 1:
        raise ValueError(
            f"kernel_size is {(kh, kw)}, covering {dh * (kh - 1) + 1}x{dw * (kw - 1) + 1} pixels (dilation included), "
            f"more than the padded picture's {h + 2 * ph}x{w + 2 * pw}"
        )
    for name, size, out, st, p, d in (("height", h, oh, sh, ph, dh), ("width", w, ow, sw, pw, dw)):
        # a window that starts in the padding has its first pixel in the picture at start modulo dilation
        if any((i * st - p) % d >= size for i in range(min(out, -(-p // st)))):
            raise ValueError(
                f"dilation is {(dh, dw)}, so that a window in the padding has no pixel of the {name} {size}"
            )
    return x, PoolGeometry(n, c, h, w, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw)


def max_pool2d_gradient(dy, indices, input_shape, onto, look=True):
    """Return ``dy, indices, input_shape, onto``; each index lies inside a plane of the input.

    A kernel that looks at the indices itself asks for no ``look`` here, and calls `pooled_indices`.
    """
    dy = array("dy", dy, 4)
    indices = index_array("indices", indices, dy.shape)
    input_shape = shape("input_shape", input_shape, 4)
    if input_shape[:2] != dy.shape[:2]:
        raise ValueError(f"input_shape is {input_shape}; expected {dy.shape[:2]} for N and C, as dy has")
    plane = input_shape[2] * input_shape[3]
    if onto is not None:
        onto = same_shape("onto", array("onto", onto, 4, dy.dtype), input_shape, "input_shape")
    # as unsigned numbers the negative ones are huge: one pass over the indices finds both kinds
    if look and indices.size and not is_on_device(indices) and indices.view(np.uint64).max() >= plane:
        pooled_indices(indices.min(), indices.max(), input_shape)
    return dy, indices, input_shape, onto


def pooled_indices(low, high, input_shape):
    """Check that indices from ``low`` to ``high`` lie inside a plane of the input."""
    plane = input_shape[2] * input_shape[3]
    if low < 0 or high >= plane:
        raise ValueError(f"indices has values from {low} to {high}; expected 0 to {plane - 1}")


class ResizeGeometry(NamedTuple):
    """Sizes of a resizing, and the step in input pixels from one output pixel to the next."""

    N: int
    C: int
    H: int
    W: int
    oH: int
    oW: int
    step_h: float
    step_w: float


def _resize_geometry(input_shape, size, scale_factor, mode, align_corners):
    n, c, h, w = input_shape
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"mode is {mode!r}; expected 'nearest' or 'bilinear'")
    if align_corners and mode == "nearest":
        raise ValueError("align_corners is True; expected False with mode 'nearest'")
    if (size is None) == (scale_factor is None):
        raise ValueError("expected one of size and scale_factor; got " + ("neither" if size is None else "both"))
    has_pixels("the input", input_shape)
    factors = (None, None)
    if size is not None:
        oh, ow = pair("size", size, 1)
    else:
        factors = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        if len(factors) != 2:
            raise ValueError(f"scale_factor is {scale_factor!r}; expected a number or a pair (vertical, horizontal)")
        factors = tuple(number("scale_factor", factor, 0) for factor in factors)
        oh, ow = int(h * factors[0]), int(w * factors[1])
        if oh < 1 or ow < 1:
            raise ValueError(
                f"scale_factor is {scale_factor!r}, which makes {oh}x{ow} of {h}x{w}; expected at least 1x1"
            )

    def step(size_in, size_out, factor):
        # PyTorch: a given factor counts as it is, not as the ratio of the rounded sizes, unless the size stays or,
        # with nearest, doubles
        if align_corners:
            return (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
        if size_in == size_out:
            return 1.0
        if mode == "nearest" and size_out == 2 * size_in:
            return 0.5
        return 1.0 / factor if factor else size_in / size_out

    return ResizeGeometry(n, c, h, w, oh, ow, step(h, oh, factors[0]), step(w, ow, factors[1]))


def upsample2d(x, size, scale_factor, mode, align_corners):
    """Return ``x, geometry``."""
    x = array("x", x, 4)
    return x, _resize_geometry(x.shape, size, scale_factor, mode, align_corners)


def upsample2d_gradient(dy, input_shape, size, scale_factor, mode, align_corners):
    """Return ``dy, geometry``."""
    dy = array("dy", dy, 4)
    g = _resize_geometry(shape("input_shape", input_shape, 4), size, scale_factor, mode, align_corners)
    same_shape("dy", dy, (g.N, g.C, g.oH, g.oW), "the shape of the output")
    return dy, g
