"""Transposed convolution: the adjoint of ``conv2d``, computed by its kernels with input and output exchanged."""

from kernels import checks
from kernels.cuda.array import on_device
from kernels.cuda.channel_sums import channel_sums
from kernels.cuda.correlation import gather, scatter
from kernels.cuda.weight_gradient import weight_gradient


def conv_transpose2d_forward(x, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Stamp kernels onto a larger picture: the transpose of a convolution.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C, H, W)
        Pictures, float32 or float64.
    weight : ndarray or DeviceArray, shape (C, O / groups, kH, kW)
        Kernels, of x's type. Input channels come first, unlike in a convolution.
    bias : ndarray or DeviceArray, shape (O,), optional
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
    DeviceArray, shape (N, O, oH, oW)
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
    *arrays, g = checks.conv_transpose2d(x, weight, bias, stride, padding, output_padding, dilation, groups)
    x, weight, bias = on_device(*arrays)
    return scatter(x, weight, bias, g, (g.H, g.W), (g.oH, g.oW))


def conv_transpose2d_backward(
    dy, x, weight, stride=1, padding=0, output_padding=0, dilation=1, groups=1, *, needs=(True, True, True)
):
    """Return the gradients of a transposed convolution.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, O, oH, oW)
        Gradient of the output.
    x, weight, stride, padding, output_padding, dilation, groups
        As given to `conv_transpose2d_forward`.
    needs : three bool
        Which of the gradients to compute: of x, weight and bias.

    Returns
    -------
    dx, dweight, dbias : DeviceArray or None
        Shapes (N, C, H, W), (C, O / groups, kH, kW) and (O,); None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d_forward`, and if dy has not the shape and type of the output.
    """
    *arrays, g, needs = checks.conv_transpose2d_gradient(
        dy, x, weight, stride, padding, output_padding, dilation, groups, needs
    )
    dy, x, weight = on_device(*arrays)
    # the convolution that this is the adjoint of takes dy to x
    dx = gather(dy, weight, None, g, (g.oH, g.oW), (g.H, g.W)) if needs[0] else None
    dweight = weight_gradient(x, dy, weight.shape, g) if needs[1] else None
    dbias = channel_sums(dy.reshape(*dy.shape[:2], g.oH * g.oW)) if needs[2] else None
    return dx, dweight, dbias
