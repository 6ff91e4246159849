"""Convolution, its transpose, and the linear layer."""

import numpy as np

from tinyseg.backend import has_kernel, kernel
from tinyseg.function import Function
from tinyseg.ops.activation import Relu
from tinyseg.ops.shapes import cat, pad, reshape
from tinyseg.tensor import is_grad_enabled, tensor_over


class Conv2d(Function):
    gradients_are_new = True

    def forward(self, x, weight, bias, **parameters):
        self.saved = x, weight
        self.parameters = parameters
        return kernel("conv2d_forward")(x, weight, bias, **parameters)

    def backward(self, dy):
        return kernel("conv2d_backward")(dy, *self.saved, **self.parameters, needs=self.needs)


class Conv2dJoined(Function):
    """A convolution of two arrays side by side: as if they were joined along the channels."""

    gradients_are_new = True

    def forward(self, x, more, weight, bias, **parameters):
        self.saved = x, more, weight
        self.parameters = parameters
        return kernel("conv2d_relu_forward")(x, weight, bias, **parameters, more=more, relu=False)

    def backward(self, dy):
        needs = self.needs[0] or self.needs[1], *self.needs[2:]
        return kernel("conv2d_joined_backward")(dy, *self.saved, **self.parameters, needs=needs)


class ConvTranspose2d(Function):
    gradients_are_new = True

    def forward(self, x, weight, bias, **parameters):
        self.saved = x, weight
        self.parameters = parameters
        return kernel("conv_transpose2d_forward")(x, weight, bias, **parameters)

    def backward(self, dy):
        return kernel("conv_transpose2d_backward")(dy, *self.saved, **self.parameters, needs=self.needs)


class Linear(Function):
    gradients_are_new = True

    def forward(self, x, weight, bias):
        self.saved = x, weight
        return kernel("linear_forward")(x, weight, bias)

    def backward(self, dy):
        return kernel("linear_backward")(dy, *self.saved, needs=self.needs)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, more=None):
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
    more : Tensor, optional
        Further input channels, of the shape of ``input``, which they follow: ``conv2d(cat([input, more], dim=1), ...)``
        in less time and memory where there is a kernel for it.

    Returns
    -------
    Tensor
        ``(N, C_out, oH, oW)`` with ``oH = (H + 2 padding - dilation (kH - 1) - 1) // stride + 1``.

    Raises
    ------
    TypeError, ValueError
        If types, shapes or parameters do not fit each other.
    """
    if more is not None and (isinstance(padding, str) or not has_kernel("conv2d_joined_backward", input)):
        input, more = cat([input, more], dim=1), None
    if isinstance(padding, str):
        input, padding = _named_padding(input, weight.shape, stride, padding, dilation)
    parameters = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if more is not None:
        return Conv2dJoined.apply(input, more, weight, bias, **parameters)
    return Conv2d.apply(input, weight, bias, **parameters)


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


def conv2d_relu(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, more=None, scale=None, residual=None,
    relu=True,
):  # fmt: skip
    """Return ``relu(conv2d(input, weight * scale, bias) + residual)``, in one pass where no gradient is recorded.

    Parameters
    ----------
    input, weight, bias, stride, padding, dilation, groups
        As in `conv2d`.
    more : Tensor, optional
        Further input channels, of the shape of ``input``, which they follow: as if both were joined.
    scale : Tensor, optional
        ``(C_out,)``: what the weights of each output channel are multiplied by.
    residual : Tensor, optional
        What is added, of the output's shape.
    relu : bool
        Whether to apply the ReLU.

    Returns
    -------
    Tensor
        ``(N, C_out, oH, oW)``.

    Raises
    ------
    TypeError, ValueError
        If types, shapes or parameters do not fit each other.
    """
    if _in_one_pass("conv2d_relu_forward", input):
        if isinstance(padding, str):
            input, more = input if more is None else cat([input, more], dim=1), None
            input, padding = _named_padding(input, weight.shape, stride, padding, dilation)
        parameters = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        tensors = {"x": input, "weight": weight, "bias": bias, "more": more, "scale": scale, "residual": residual}
        arrays = {name: None if tensor is None else tensor.array for name, tensor in tensors.items()}
        return tensor_over(kernel("conv2d_relu_forward")(**arrays, **parameters, relu=relu))
    weight = weight if scale is None else weight * reshape(scale, -1, 1, 1, 1)
    y = conv2d(input, weight, bias, stride, padding, dilation, groups, more=more)
    y = y if residual is None else y + residual
    return Relu.apply(y) if relu else y


def conv_transpose2d_relu(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, scale=None, relu=True
):
    """Return ``relu(conv_transpose2d(input, weight * scale, bias))``, in one pass where no gradient is recorded.

    Parameters
    ----------
    input, weight, bias, stride, padding, output_padding, groups, dilation
        As in `conv_transpose2d`.
    scale : Tensor, optional
        ``(C_out,)``: what the weights of each output channel are multiplied by.
    relu : bool
        Whether to apply the ReLU.

    Returns
    -------
    Tensor
        ``(N, C_out, oH, oW)``.

    Raises
    ------
    TypeError, ValueError
        If types, shapes or parameters do not fit each other.
    """
    parameters = {
        "stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation, "groups": groups
    }  # fmt: skip
    if _in_one_pass("conv_transpose2d_relu_forward", input):
        arrays = [None if tensor is None else tensor.array for tensor in (input, weight, bias, scale)]
        in_one_pass = kernel("conv_transpose2d_relu_forward")
        return tensor_over(in_one_pass(*arrays[:3], **parameters, scale=arrays[3], relu=relu))
    if scale is not None:  # output channels are group by group along the second axis
        per_group = reshape(weight, groups, -1, *weight.shape[1:]) * reshape(scale, groups, 1, -1, 1, 1)
        weight = reshape(per_group, *weight.shape)
    y = ConvTranspose2d.apply(input, weight, bias, **parameters)
    return Relu.apply(y) if relu else y


def _in_one_pass(name, input):
    """Return whether a kernel without a backward pass may run."""
    return not is_grad_enabled() and has_kernel(name, input)


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
