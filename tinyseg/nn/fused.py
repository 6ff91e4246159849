"""The one place where layers run as one: a convolution, its normalisation, what is added, and a ReLU.

Where nothing is recorded for a backward pass and the normalisation is that of fixed statistics, it is a scale and a
shift for each channel, which the convolution takes over: the maps are written once and never read again. In training,
normalisation and ReLU share their passes. Layers that a forward hook looks at run one by one, as does everything on a
backend that has no such kernels. The numbers are the same up to rounding.
"""

import numpy as np

from tinyseg import ops
from tinyseg.backend import has_kernel, kernel
from tinyseg.nn.layers import Conv2d, ConvTranspose2d, ReLU
from tinyseg.nn.normalization import BatchNorm2d, FrozenBatchNorm2d
from tinyseg.tensor import is_grad_enabled, tensor_over
from tinyseg.watching import tell

CONVOLUTIONS = (Conv2d, ConvTranspose2d)
NORMALISATIONS = (BatchNorm2d, FrozenBatchNorm2d)


def conv_norm(conv, norm, x, *, more=None, relu=True, residual=None):
    """Return ``relu(norm(conv(x)) + residual)``, where ``more`` may be joined to ``x``.

    Parameters
    ----------
    conv : Module
        A convolution or transposed convolution.
    norm : Module or None
        A normalisation.
    x : Tensor
        ``(N, C, H, W)``.
    more : Tensor, optional
        Of the same shape: further channels, which follow those of ``x``.
    relu : bool
        Whether to apply the ReLU.
    residual : Tensor, optional
        What is added before it, of the output's shape.

    Returns
    -------
    Tensor
        ``(N, C_out, oH, oW)``.
    """
    folds = _can_fold(conv, norm, residual)
    if more is not None and (type(conv) is not Conv2d or conv._hooks):  # a hook sees what the convolution is given
        x, more = ops.cat([x, more], dim=1), None
    if folds:
        tell("folded", conv=conv, norm=norm)
        scale, shift = (None, conv.bias) if norm is None else _folded(conv, norm)
        how = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
        how |= {"scale": scale, "relu": relu}
        if type(conv) is Conv2d:
            return ops.conv2d_relu(x, conv.weight, shift, **how, more=more, residual=residual)
        return ops.conv_transpose2d_relu(x, conv.weight, shift, **how, output_padding=conv.output_padding)
    y = conv(x) if more is None else conv(x, more)
    if norm is not None and relu and type(norm) in NORMALISATIONS:
        return norm.relu(y, residual)
    y = y if norm is None else norm(y)
    y = y if residual is None else y + residual
    return ops.relu(y) if relu else y


def run(layers, x):
    """Run layers one after the other, those together that `conv_norm` takes.

    Parameters
    ----------
    layers : list of Module
        In order.
    x : Tensor
        Input of the first.

    Returns
    -------
    Tensor
        Output of the last.
    """
    i = 0
    while i < len(layers):
        conv, i = layers[i], i + 1
        if type(conv) not in CONVOLUTIONS:
            x = conv(x)
            continue
        norm = layers[i] if i < len(layers) and type(layers[i]) in NORMALISATIONS else None
        i += norm is not None
        relu = i < len(layers) and type(layers[i]) is ReLU and not layers[i]._hooks
        i += relu
        x = conv_norm(conv, norm, x, relu=relu)
    return x


def _can_fold(conv, norm, residual):
    """Return whether a convolution can take over all that follows it."""
    if is_grad_enabled() or type(conv) not in CONVOLUTIONS or conv._hooks:
        return False
    if not has_kernel("conv2d_relu_forward", conv.weight) or (residual is not None and type(conv) is not Conv2d):
        return False
    if norm is None:
        return True
    fixed = type(norm) is FrozenBatchNorm2d or (not norm.training and getattr(norm, "running_mean", None) is not None)
    return type(norm) in NORMALISATIONS and not norm._hooks and fixed


def _folded(conv, norm):
    """Return what scales each output channel of a convolution, and what is then added to it.

    ``(w x + b - mean) / std * gamma + beta``
    """
    if has_kernel("folded_batch_norm", conv.weight):
        tensors = norm.running_mean, norm.running_var, norm.weight, norm.bias, conv.bias
        arrays = (None if tensor is None else tensor.array for tensor in tensors)
        return tuple(map(tensor_over, kernel("folded_batch_norm")(*arrays, norm.eps)))
    dtype, start, gamma, beta = conv.weight.dtype, conv.bias, norm.weight, norm.bias
    std = np.sqrt(norm.running_var.array.astype(np.float64) + norm.eps)
    scale = 1 / std if gamma is None else gamma.array / std
    mean = norm.running_mean.array.astype(np.float64)
    shift = (-mean if start is None else start.array - mean) * scale
    if beta is not None:
        shift = shift + beta.array
    return tensor_over(scale.astype(dtype)), tensor_over(shift.astype(dtype))
