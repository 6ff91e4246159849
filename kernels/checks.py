"""Every check of dtype, shape, layout and index: the only place in ``kernels`` that raises for them.

Each operator's check takes what the caller gave and returns what a kernel may rely on: C-contiguous arrays of one
native floating type, parameters as pairs, and the sizes that follow from them. A kernel itself has no bounds checks,
so an index that would leave an array must not get past this file.
"""

import operator
from typing import NamedTuple

import numpy as np

FLOATS = (np.float32, np.float64)
REDUCTIONS = ("none", "mean", "sum")


# ---- single arguments ----------------------------------------------------------------------------------------------


def array(name, a, ndim=None, dtype=None):
    """Return ``a`` as a C-contiguous float array in native byte order, of ``ndim`` axes and type ``dtype`` if given."""
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{name} is a {type(a).__name__}; expected a NumPy array")
    native = a.dtype.newbyteorder("=")
    if native not in FLOATS:
        raise TypeError(f"{name} has dtype {a.dtype}; expected float32 or float64")
    if dtype is not None and native != dtype:
        raise TypeError(f"{name} has dtype {native}; expected {np.dtype(dtype)}, as the other arrays have")
    if ndim is not None and a.ndim != ndim:
        raise ValueError(f"{name} has shape {a.shape}; expected {ndim} axes, {_AXES.get(ndim, '')}".rstrip(", "))
    return np.asarray(a, dtype=native, order="C")


_AXES = {1: "one value per channel", 2: "(N, features)", 4: "(N, C, H, W)"}


def index_array(name, a, shape=None):
    """Return ``a`` as a C-contiguous int64 array of shape ``shape`` if given."""
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{name} is a {type(a).__name__}; expected a NumPy array")
    if a.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {a.dtype}; expected integers")
    if shape is not None and a.shape != tuple(shape):
        raise ValueError(f"{name} has shape {a.shape}; expected {tuple(shape)}")
    return np.asarray(a, dtype=np.int64, order="C")


def same_shape(name, a, shape, why):
    """Check that array ``a`` has shape ``shape``; ``why`` says where that shape comes from."""
    if a.shape != tuple(shape):
        raise ValueError(f"{name} has shape {a.shape}; expected {tuple(shape)}, {why}")
    return a


def integer(name, value, minimum=None):
    """Return ``value`` as an int of at least ``minimum``, where given."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected a whole number") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} is {number}; expected at least {minimum}")
    return number


def pair(name, value, minimum):
    """Return ``value``, an int or a pair (vertical, horizontal), as two ints of at least ``minimum``."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} is {value!r}; expected a whole number or a pair (vertical, horizontal)")
        return integer(name, value[0], minimum), integer(name, value[1], minimum)
    number = integer(name, value, minimum)
    return number, number


def shape(name, value, ndim=None):
    """Return ``value`` as a shape: a tuple of ``ndim`` sizes, where given, of at least 0."""
    if not isinstance(value, (tuple, list)) or ndim not in (None, len(value)):
        raise ValueError(f"{name} is {value!r}; expected a shape" + (f" of {ndim} sizes" if ndim else ""))
    return tuple(integer(name, size, 0) for size in value)


def number(name, value, minimum=None, maximum=None):
    """Return ``value`` as a finite float from ``minimum`` to ``maximum``, where given."""
    try:
        if isinstance(value, (bool, np.bool_, str)):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} is {value!r}; expected a number") from None
    if not np.isfinite(result):
        raise ValueError(f"{name} is {result}; expected a finite number")
    if minimum is not None and result < minimum:
        raise ValueError(f"{name} is {result}; expected at least {minimum}")
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} is {result}; expected at most {maximum}")
    return result


def reduction(value):
    """Check the name of a reduction."""
    if value not in REDUCTIONS:
        raise ValueError(f"reduction is {value!r}; expected 'none', 'mean' or 'sum'")
    return value


def axis(value, ndim):
    """Return ``value`` as an axis from 0 to ``ndim - 1``; negative ones count from the end."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"axis is {value!r}; expected a whole number")
    if not -ndim <= value < ndim:
        raise ValueError(f"axis is {value}; expected one from {-ndim} to {ndim - 1}")
    return int(value) % ndim


def three_flags(name, value):
    """Return ``value`` as three bools: whether the gradients of x, weight and bias are wanted."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(f"{name} is {value!r}; expected three flags: for x, weight and bias")
    return tuple(bool(flag) for flag in value)


# ---- convolution ---------------------------------------------------------------------------------------------------


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


def _has_pixels(name, of_shape):
    if of_shape[2] < 1 or of_shape[3] < 1:
        raise ValueError(f"{name} has shape {tuple(of_shape)}; expected a height and width of at least 1")


def _divides(groups, channels, what):
    if channels % groups:
        raise ValueError(f"groups is {groups}, which does not divide the {channels} {what}")


def _conv2d_geometry(x_shape, weight_shape, stride, padding, dilation, groups):
    n, c, h, w = x_shape
    o, c_per_group, kh, kw = weight_shape
    (sh, sw), (ph, pw) = pair("stride", stride, 1), pair("padding", padding, 0)
    (dh, dw), groups = pair("dilation", dilation, 1), integer("groups", groups, 1)
    _divides(groups, c, "input channels")
    _divides(groups, o, "output channels")
    if c_per_group * groups != c:
        raise ValueError(
            f"weight has shape {tuple(weight_shape)}, for {c_per_group * groups} input channels in {groups} group(s); "
            f"x has {c} channels"
        )
    if kh < 1 or kw < 1:
        raise ValueError(f"weight has shape {tuple(weight_shape)}; expected a kernel of at least 1x1")
    _has_pixels("x", x_shape)
    reach_h, reach_w = dh * (kh - 1) + 1, dw * (kw - 1) + 1
    if reach_h > h + 2 * ph or reach_w > w + 2 * pw:
        raise ValueError(
            f"the kernel covers {reach_h}x{reach_w} pixels (dilation included), more than the padded picture's "
            f"{h + 2 * ph}x{w + 2 * pw}"
        )
    oh, ow = (h + 2 * ph - reach_h) // sh + 1, (w + 2 * pw - reach_w) // sw + 1
    return ConvGeometry(n, c, h, w, o, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, groups)


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """Return ``x, weight, bias, geometry`` of a valid convolution."""
    x = array("x", x, 4)
    weight = array("weight", weight, 4, x.dtype)
    g = _conv2d_geometry(x.shape, weight.shape, stride, padding, dilation, groups)
    if bias is not None:
        bias = same_shape("bias", array("bias", bias, 1, x.dtype), (g.O,), "one value per output channel")
    return x, weight, bias, g


def conv2d_gradient(dy, x, weight, stride, padding, dilation, groups, needs):
    """Return ``dy, x, weight, geometry, needs`` of a valid backward call."""
    x, weight, _, g = conv2d(x, weight, None, stride, padding, dilation, groups)
    dy = array("dy", dy, 4, x.dtype)
    same_shape("dy", dy, (g.N, g.O, g.oH, g.oW), "the shape of the output")
    return dy, x, weight, g, three_flags("needs", needs)


def _conv_transpose2d_geometry(x_shape, weight_shape, stride, padding, output_padding, dilation, groups):
    n, c, h, w = x_shape
    c_weight, o_per_group, kh, kw = weight_shape
    (sh, sw), (ph, pw) = pair("stride", stride, 1), pair("padding", padding, 0)
    (dh, dw), groups = pair("dilation", dilation, 1), integer("groups", groups, 1)
    oph, opw = pair("output_padding", output_padding, 0)
    _divides(groups, c, "input channels")
    if c_weight != c:
        raise ValueError(f"weight has shape {tuple(weight_shape)}, for {c_weight} input channels; x has {c} channels")
    if kh < 1 or kw < 1 or o_per_group < 1:
        raise ValueError(f"weight has shape {tuple(weight_shape)}; expected sizes of at least 1")
    if oph >= max(sh, dh) or opw >= max(sw, dw):
        raise ValueError(
            f"output_padding is {(oph, opw)}; expected less than the larger of stride {(sh, sw)} and "
            f"dilation {(dh, dw)} on each axis"
        )
    _has_pixels("x", x_shape)
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


# ---- normalisation, pooling, resizing -------------------------------------------------------------------------------


def _per_channel(name, a, x):
    if a is None:
        return None
    return same_shape(name, array(name, a, 1, x.dtype), x.shape[1:2], "one value per channel of x")


def _running(name, a, x, written):
    if a is None:
        return None
    checked = _per_channel(name, a, x)
    if written and not (a.flags.writeable and a.flags.c_contiguous and a.dtype.isnative):
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
    _has_pixels("x", x.shape)
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


def max_pool2d_gradient(dy, indices, input_shape):
    """Return ``dy, indices, input_shape``; each index lies inside a plane of the input."""
    dy = array("dy", dy, 4)
    indices = index_array("indices", indices, dy.shape)
    input_shape = shape("input_shape", input_shape, 4)
    if input_shape[:2] != dy.shape[:2]:
        raise ValueError(f"input_shape is {input_shape}; expected {dy.shape[:2]} for N and C, as dy has")
    plane = input_shape[2] * input_shape[3]
    # as unsigned numbers the negative ones are huge: one pass over the indices finds both kinds
    if indices.size and indices.view(np.uint64).max() >= plane:
        raise ValueError(f"indices has values from {indices.min()} to {indices.max()}; expected 0 to {plane - 1}")
    return dy, indices, input_shape


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
    _has_pixels("the input", input_shape)
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
        # PyTorch: a given factor counts as it is, not as the ratio of the rounded sizes, unless the size stays
        if align_corners:
            return (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
        if size_in == size_out:
            return 1.0
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


# ---- elementwise, joining --------------------------------------------------------------------------------------------


def gradient_of(dy, y, name="y"):
    """Return ``dy, y`` of one shape and type, for an operator whose gradient follows from ``y``."""
    y = array(name, y)
    return same_shape("dy", array("dy", dy, None, y.dtype), y.shape, f"the shape of {name}"), y


def add(a, b):
    """Return ``a, b, shape``: two arrays that broadcast to ``shape``."""
    a = array("a", a)
    b = array("b", b, None, a.dtype)
    try:
        return a, b, np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(f"a has shape {a.shape} and b has shape {b.shape}, which do not broadcast") from None


def add_gradient(dy, a_shape, b_shape):
    """Return ``dy, a_shape, b_shape``."""
    dy = array("dy", dy)
    a_shape, b_shape = shape("a_shape", a_shape), shape("b_shape", b_shape)
    try:
        expected = np.broadcast_shapes(a_shape, b_shape)
    except ValueError:
        raise ValueError(f"a_shape is {a_shape} and b_shape is {b_shape}, which do not broadcast") from None
    return same_shape("dy", dy, expected, "the shape of the output"), a_shape, b_shape


def concat(arrays, axis_):
    """Return ``arrays, axis``: a list of arrays that agree in type and in every axis but one."""
    if not isinstance(arrays, (tuple, list)) or not arrays:
        raise ValueError("arrays is empty or not a list; expected at least one array")
    arrays = [array("arrays[0]", arrays[0])] + [
        array(f"arrays[{i}]", a, arrays[0].ndim, arrays[0].dtype.newbyteorder("=")) for i, a in enumerate(arrays[1:], 1)
    ]
    along = axis(axis_, arrays[0].ndim)
    first = arrays[0].shape
    for i, a in enumerate(arrays):
        if a.shape[:along] + a.shape[along + 1 :] != first[:along] + first[along + 1 :]:
            raise ValueError(f"arrays[{i}] has shape {a.shape}; expected {first} but for axis {along}")
    return arrays, along


def concat_gradient(dy, sizes, axis_):
    """Return ``dy, sizes, axis``."""
    dy = array("dy", dy)
    along = axis(axis_, dy.ndim)
    if not isinstance(sizes, (tuple, list)):
        raise ValueError(f"sizes is {sizes!r}; expected a list: the size of each array along axis {along}")
    sizes = [integer("sizes", size, 0) for size in sizes]
    if sum(sizes) != dy.shape[along]:
        raise ValueError(f"sizes sum to {sum(sizes)}; expected {dy.shape[along]}, the size of dy along axis {along}")
    return dy, sizes, along


# ---- losses ----------------------------------------------------------------------------------------------------------


def loss_pair(x, target, name="x"):
    """Return ``x, target`` of one shape and type."""
    x = array(name, x)
    target = same_shape("target", array("target", target, None, x.dtype), x.shape, f"the shape of {name}")
    return x, target


def probabilities(p, target):
    """Return ``p, target``; every value of both lies in [0, 1] or is NaN."""
    p, target = loss_pair(p, target, "p")
    for name, a in (("p", p), ("target", target)):
        if a.size and ((a < 0) | (a > 1)).any():
            raise ValueError(f"{name} has values from {np.nanmin(a):g} to {np.nanmax(a):g}; expected 0 to 1")
    return p, target


def broadcast_to(name, a, x):
    """Return ``a``, or None, broadcast to the shape of ``x``."""
    if a is None:
        return None
    a = array(name, a, None, x.dtype)
    try:
        return np.ascontiguousarray(np.broadcast_to(a, x.shape))
    except ValueError:
        raise ValueError(f"{name} has shape {a.shape}, which does not broadcast to {x.shape}") from None


def loss_gradient(dy, x, how, none_shape=None):
    """Return ``dy`` as an array of the loss's shape: with 'none' that of ``x`` (or ``none_shape``), else no axes."""
    reduction(how)
    if isinstance(dy, (int, float, np.floating)):
        dy = np.asarray(dy, x.dtype)
    dy = array("dy", dy, None, x.dtype)
    expected = (x.shape if none_shape is None else none_shape) if how == "none" else ()
    return same_shape("dy", dy, expected, f"the shape of the loss with reduction {how!r}")


def cross_entropy(x, target, weight, ignore_index, label_smoothing):
    """Return ``x, target, weight, ignore_index, label_smoothing``, with x as (N, C, P) and target as (N, P).

    ``x`` is (N, C) or (N, C, ...), ``target`` has its shape without the axis of classes. Every target is a class or
    ``ignore_index``.
    """
    x = array("x", x)
    if x.ndim < 2 or x.shape[1] < 1:
        raise ValueError(f"x has shape {x.shape}; expected (N, C) or (N, C, ...), with one or more classes C")
    n, c = x.shape[:2]
    target = index_array("target", target, (n, *x.shape[2:]))
    ignore_index = integer("ignore_index", ignore_index)
    wrong = ((target < 0) | (target >= c)) & (target != ignore_index)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"target has class {target[where]} at index {where}; expected 0 to {c - 1}, or {ignore_index} to be ignored"
        )
    if weight is not None:
        weight = same_shape("weight", array("weight", weight, 1, x.dtype), (c,), "one value per class")
    smoothing = number("label_smoothing", label_smoothing, 0, 1)
    pixels = int(np.prod(x.shape[2:], dtype=np.int64))
    return x.reshape(n, c, pixels), target.reshape(n, pixels), weight, ignore_index, smoothing
