"""Convolutions that end in a residual and a ReLU: what inference runs, with batch norms folded into the weights.

The scale is multiplied into the weights as they are packed; residual and ReLU are applied as the sums are written, or
as their parts are added up.
"""

from kernels import checks
from kernels.cuda.array import on_device
from kernels.cuda.conv_joined import gather_both
from kernels.cuda.correlation import Ending, gather, scatter


def conv2d_relu_forward(
    x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, more=None, scale=None, residual=None, relu=True
):
    """Convolve, add a residual and apply a ReLU, without further passes over the output.

    Parameters
    ----------
    x, weight, bias, stride, padding, dilation, groups
        As for ``conv2d_forward``.
    more : ndarray or DeviceArray, shape of ``x``, optional
        Further input channels, which follow those of ``x``; see ``conv_joined``.
    scale : ndarray or DeviceArray, shape (O,), optional
        What the weights of each output channel are multiplied by: that of a batch norm, say.
    residual : ndarray or DeviceArray, shape of the output, optional
        What is added to the output.
    relu : bool
        Whether what is then below 0 becomes 0; NaN stays.

    Returns
    -------
    DeviceArray, shape (N, O, oH, oW)
        ``relu(conv2d_forward(x, weight * scale, ...) + residual)``, with ``more`` joined to ``x``.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together, or the kernel is larger than the padded picture.
    """
    parameters = stride, padding, dilation, groups
    x, weight, bias, g = checks.conv2d(x, weight, bias, *parameters, joined=1 if more is None else 2)
    more = checks.like_x("more", more, x)
    scale = _check_scale(scale, x, g)
    if residual is not None:
        residual = checks.array("residual", residual, 4, x.dtype)
        shape = (x.shape[0], weight.shape[0], g.oH, g.oW)
        checks.same_shape("residual", residual, shape, "that of the convolution's output")
    x, more, weight, bias, scale, residual = on_device(x, more, weight, bias, scale, residual)
    if more is not None:
        return gather_both(x, more, weight, bias, g, Ending(scale, residual, relu))
    return gather(x, weight, bias, g, (g.H, g.W), (g.oH, g.oW), Ending(scale, residual, relu))


def conv_transpose2d_relu_forward(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1, *, scale=None, relu=True
):
    """Apply a transposed convolution and a ReLU, without a further pass over the output.

    Parameters
    ----------
    x, weight, bias, stride, padding, output_padding, dilation, groups
        As for ``conv_transpose2d_forward``.
    scale : ndarray or DeviceArray, shape (O,), optional
        What the weights of each output channel are multiplied by.
    relu : bool
        Whether what is below 0 becomes 0; NaN stays.

    Returns
    -------
    DeviceArray, shape (N, O, oH, oW)
        ``relu(conv_transpose2d_forward(x, weight * scale, ...))``.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together.
    """
    x, weight, bias, g = checks.conv_transpose2d(x, weight, bias, stride, padding, output_padding, dilation, groups)
    x, weight, bias, scale = on_device(x, weight, bias, _check_scale(scale, x, g))
    return scatter(x, weight, bias, g, (g.H, g.W), (g.oH, g.oW), Ending(scale, None, relu))


def _check_scale(scale, x, g):
    """Return a valid scale."""
    if scale is None:
        return None
    return checks.same_shape("scale", checks.array("scale", scale, 1, x.dtype), (g.O,), "one value per output channel")
