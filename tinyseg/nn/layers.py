"""The layers with parameters or settings: thin shells around ``tinyseg.ops``, with PyTorch's arguments and names."""

import numpy as np

from tinyseg import ops
from tinyseg.nn import init
from tinyseg.nn.checks import channels as _channels
from tinyseg.nn.checks import pair as _pair
from tinyseg.nn.module import Module, Parameter


class _Convolution(Module):
    """What both convolutions share."""

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode):
        super().__init__()
        if padding_mode != "zeros":
            raise ValueError(
                f"padding_mode is {padding_mode!r}; expected 'zeros' (for others, ops.pad before the layer)"
            )
        self.groups = _channels("groups", groups)
        self.in_channels = _channels("in_channels", in_channels, groups)
        self.out_channels = _channels("out_channels", out_channels, groups)
        self.kernel_size = _pair("kernel_size", kernel_size, 1)
        self.stride = _pair("stride", stride, 1)
        self.padding = padding if isinstance(padding, str) else _pair("padding", padding, 0)
        self.dilation = _pair("dilation", dilation, 1)
        self.padding_mode = padding_mode

    def _make_parameters(self, shape, bias):
        self.weight = Parameter(np.empty(shape, np.float32))
        self.register_parameter("bias", Parameter(np.empty(self.out_channels, np.float32)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw new first values: PyTorch's, evenly within ``1 / sqrt(fan_in)`` of 0."""
        init.default_(self.weight, self.bias)

    def extra_repr(self):
        """Return the settings that differ from the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if getattr(self, "output_padding", (0, 0)) != (0, 0):
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text + ("" if self.bias is not None else ", bias=False")


class Conv2d(_Convolution):
    """Convolution with trained kernels. See ``tinyseg.ops.conv2d`` for sizes.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of input and output.
    kernel_size : int or (int, int)
        Size of the kernel: vertical, horizontal.
    stride, dilation : int or (int, int)
        Steps of the kernel, and between its elements.
    padding : int or (int, int) or {"same", "valid"}
        Zeros on each side; ``"same"``, for stride 1, keeps the picture's size.
    groups : int
        Groups of channels that are convolved apart.
    bias : bool
        Whether to add a trained number to each output channel.
    padding_mode : {"zeros"}
        Nothing else is supported.

    Attributes
    ----------
    weight : Parameter
        ``(out_channels, in_channels / groups, kH, kW)``.
    bias : Parameter or None
        ``(out_channels,)``.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range, or groups do not divide the channels.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"padding is {padding!r}; expected a number, a pair, 'same' or 'valid'")
        if padding == "same" and self.stride != (1, 1):
            raise ValueError(f"padding is 'same' with stride {self.stride}; expected stride 1")
        self._make_parameters((self.out_channels, self.in_channels // self.groups, *self.kernel_size), bias)

    def forward(self, x, more=None):
        """Return the convolution of ``(N, C, H, W)``, perhaps in two halves: ``more`` has the second of C."""
        settings = self.stride, self.padding, self.dilation, self.groups
        return ops.conv2d(x, self.weight, self.bias, *settings, more=more)


class ConvTranspose2d(_Convolution):
    """Transposed convolution with trained kernels. See ``tinyseg.ops.conv_transpose2d`` for sizes.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of input and output.
    kernel_size : int or (int, int)
        Size of the kernel: vertical, horizontal.
    stride : int or (int, int)
        Output pixels per input pixel.
    padding, output_padding : int or (int, int)
        Output pixels cut off on each side, and added at the bottom and right.
    groups : int
        Groups of channels that are kept apart.
    bias : bool
        Whether to add a trained number to each output channel.
    dilation : int or (int, int)
        Steps between the elements of the kernel.
    padding_mode : {"zeros"}
        Nothing else is supported.

    Attributes
    ----------
    weight : Parameter
        ``(in_channels, out_channels / groups, kH, kW)``.
    bias : Parameter or None
        ``(out_channels,)``.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range, or groups do not divide the channels.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
        padding_mode="zeros",
    ):
        if isinstance(padding, str):
            raise ValueError(f"padding is {padding!r}; expected a number or a pair")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self.output_padding = _pair("output_padding", output_padding, 0)
        self._make_parameters((self.in_channels, self.out_channels // self.groups, *self.kernel_size), bias)

    def forward(self, x):
        """Return the transposed convolution of ``(N, C, H, W)``."""
        return ops.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


class Linear(Module):
    """A matrix product with trained weights: ``x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
        Size of the last axis of input and output.
    bias : bool
        Whether to add a trained number to each output.

    Attributes
    ----------
    weight : Parameter
        ``(out_features, in_features)``.
    bias : Parameter or None
        ``(out_features,)``.
    """

    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.in_features = _channels("in_features", in_features)
        self.out_features = _channels("out_features", out_features)
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        self.register_parameter("bias", Parameter(np.empty(out_features, np.float32)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw new first values: PyTorch's, evenly within ``1 / sqrt(in_features)`` of 0."""
        init.default_(self.weight, self.bias)

    def forward(self, x):
        """Return ``(..., out_features)`` for ``(..., in_features)``."""
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self):
        """Return the settings."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class MaxPool2d(Module):
    """The largest value of each window. See ``tinyseg.ops.max_pool2d`` for the arguments."""

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x):
        """Return the maxima of ``(N, C, H, W)``, and their indices if asked for."""
        return ops.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self):
        """Return the settings."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class Upsample(Module):
    """Resizing. See ``tinyseg.ops.interpolate`` for the arguments."""

    def __init__(self, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None):
        super().__init__()
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def forward(self, x):
        """Return ``(N, C, H, W)`` resized."""
        return ops.interpolate(
            x, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self):
        """Return the settings."""
        return (f"scale_factor={self.scale_factor}" if self.size is None else f"size={self.size}") + (
            f", mode={self.mode!r}"
        )


class ReLU(Module):
    """``max(0, x)``."""

    def forward(self, x):
        """Return the positive part, any shape."""
        return ops.relu(x)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x):
        """Return values from 0 to 1, any shape."""
        return ops.sigmoid(x)


class Softmax(Module):
    """``exp(x)`` scaled to sum 1 along axis ``dim``: ``ops.softmax``."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        """Return probabilities, any shape."""
        return ops.softmax(x, self.dim)

    def extra_repr(self):
        """Return the settings."""
        return f"dim={self.dim}"


class Identity(Module):
    """What comes in goes out.

    Parameters
    ----------
    *args, **kwargs
        Ignored, so that it can take the place of any layer.
    """

    def __init__(self, *args, **kwargs):
        super().__init__()

    def forward(self, x):
        """Return ``x``."""
        return x


class Flatten(Module):
    """Joins axes. Takes the arguments of ``ops.flatten``, but keeps the batch axis by default."""

    def __init__(self, start_dim=1, end_dim=-1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        """Return ``(N, features)`` with the default settings."""
        return ops.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self):
        """Return the settings."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
