"""Convolution, its transpose, and the linear layer."""

import numpy as np

from tinyseg.backend import kernel
from tinyseg.function import Function
from tinyseg.ops.shapes import pad, reshape


class Conv2d(Function):
    def forward(self, x, weight, bias, **parameters):
        self.saved = x, weight
        self.parameters = parameters
        return kernel("conv2d_forward")(x, weight, bias, **parameters)

    def backward(self, dy):
        return kernel("conv2d_backward")(dy, *self.saved, **self.parameters, needs=self.needs)


class ConvTranspose2d(Function):
    def forward(self, x, weight, bias, **parameters):
        self.saved = x, weight
        self.parameters = parameters
        return kernel("conv_transpose2d_forward")(x, weight, bias, **parameters)

    def backward(self, dy):
        return kernel("conv_transpose2d_backward")(dy, *self.saved, **self.parameters, needs=self.needs)


class Linear(Function):
    def forward(self, x, weight, bias):
        self.saved = x, weight
        return kernel("linear_forward")(x, weight, bias)

    def backward(self, dy):
        return kernel("linear_backward")(dy, *self.saved, needs=self.needs)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Slide a kernel over pictures (cross-correlation). Arguments and their order follow PyTorch.

    Parameters
    ----------
    input : Tensor
        ``(N, C, H, W)``.
    weight : Tensor
        ``(C_out, C / groups, kH, kW)``.
    bias : Tensor, optional
        ``(C_out,)``.
    stride, dilation : int or (int, int)
        Steps of the window, and between its elements, in pixels: vertical, horizontal.
    padding : int or (int, int) or {"same", "valid"}
        Zeros added on each side. ``"same"`` keeps the picture's size, for stride 1; ``"valid"`` adds none.
    groups : int
        Number of groups of channels that are convolved apart.

    Returns
    -------
    Tensor
        ``(N, C_out, oH, oW)`` with ``oH = (H + 2 padding - dilation (kH - 1) - 1) // stride + 1``.

    Raises
    ------
    TypeError, ValueError
        If types, shapes or parameters do not fit each other.
    """
    if isinstance(padding, str):
        input, padding = _named_padding(input, weight.shape, stride, padding, dilation)
    return Conv2d.apply(input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _named_padding(input, weight_shape, stride, padding, dilation):
    """Return the input, padded where its sides differ, and the padding in numbers for ``"same"`` or ``"valid"``."""
    if padding == "valid":
        return input, 0
    if padding != "same":
        raise ValueError(f"padding is {padding!r}; expected a number, a pair, 'same' or 'valid'")
    if stride not in (1, (1, 1), [1, 1]):
        raise ValueError(f"padding is 'same' with stride {stride}; expected stride 1")
    if len(weight_shape) != 4 or input.ndim != 4:
        return input, 0  # the kernel's check names what is wrong
    dilation = dilation if isinstance(dilation, tuple | list) else (dilation, dilation)
    total_h, total_w = (d * (k - 1) for d, k in zip(dilation, weight_shape[2:], strict=True))
    if total_h % 2 or total_w % 2:  # an even kernel: PyTorch puts the odd pixel at the bottom and right
        input = pad(input, (0, total_w % 2, 0, total_h % 2))
    return input, (total_h // 2, total_w // 2)


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Spread each pixel through a kernel: the transpose of a convolution. Arguments and order follow PyTorch.

    Parameters
    ----------
    input : Tensor
        ``(N, C, H, W)``.
    weight : Tensor
        ``(C, C_out / groups, kH, kW)``.
    bias : Tensor, optional
        ``(C_out,)``.
    stride : int or (int, int)
        Output pixels from one input pixel to the next: vertical, horizontal.
    padding : int or (int, int)
        Output pixels cut off on each side.
    output_padding : int or (int, int)
        Output pixels added at the bottom and right; less than the larger of stride and dilation.
    groups : int
        Number of groups of channels that are kept apart. Before ``dilation`` here, as in PyTorch.
    dilation : int or (int, int)
        Step between the elements of the kernel.

    Returns
    -------
    Tensor
        ``(N, C_out, oH, oW)`` with ``oH = (H - 1) stride - 2 padding + dilation (kH - 1) + output_padding + 1``.

    Raises
    ------
    TypeError, ValueError
        If types, shapes or parameters do not fit each other.
    """
    return ConvTranspose2d.apply(
        input,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )


def linear(input, weight, bias=None):
    """Return ``input @ weight.T + bias``.

    Parameters
    ----------
    input : Tensor
        ``(..., in)``.
    weight : Tensor
        ``(out, in)``.
    bias : Tensor, optional
        ``(out,)``.

    Returns
    -------
    Tensor
        ``(..., out)``.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other.
    """
    if input.ndim == 2:
        return Linear.apply(input, weight, bias)
    if input.ndim == 0:
        raise ValueError("input has no axes; expected (..., features)")
    rows = reshape(input, int(np.prod(input.shape[:-1])), input.shape[-1])
    return Linear.apply(rows, weight, bias).reshape(*input.shape[:-1], weight.shape[0])
