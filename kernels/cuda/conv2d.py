"""Convolution, forward and backward: products of matrices that are never written down (see ``implicit_gemm``)."""

from kernels import checks
from kernels.cuda.array import on_device
from kernels.cuda.channel_sums import channel_sums
from kernels.cuda.correlation import gather, scatter
from kernels.cuda.weight_gradient import weight_gradient


def conv2d_forward(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolve pictures with a bank of kernels.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C, H, W)
        Pictures, float32 or float64.
    weight : ndarray or DeviceArray, shape (O, C / groups, kH, kW)
        Kernels, of x's type.
    bias : ndarray or DeviceArray, shape (O,), optional
        Added to each output channel.
    stride : int or pair of int
        Step in pixels from one output pixel to the next (vertical, horizontal).
    padding : int or pair of int
        Rows and columns of zeros around the picture, on each side.
    dilation : int or pair of int
        Distance in pixels between neighbouring cells of the kernel.
    groups : int
        Number of groups of channels; it divides C and O.

    Returns
    -------
    DeviceArray, shape (N, O, oH, oW)
        ``oH = (H + 2 * padding - dilation * (kH - 1) - 1) // stride + 1``, and oW likewise.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not x's.
    ValueError
        If shapes or parameters do not fit each other, or the kernel is larger than the padded picture.

    Notes
    -----
    Follows ``torch.nn.functional.conv2d``.
    """
    *arrays, g = checks.conv2d(x, weight, bias, stride, padding, dilation, groups)
    x, weight, bias = on_device(*arrays)
    return gather(x, weight, bias, g, (g.H, g.W), (g.oH, g.oW))


def conv2d_backward(dy, x, weight, stride=1, padding=0, dilation=1, groups=1, *, needs=(True, True, True)):
    """Return the gradients of a convolution.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, O, oH, oW)
        Gradient of the output.
    x, weight, stride, padding, dilation, groups
        As given to `conv2d_forward`.
    needs : three bool
        Which of the gradients to compute: of x, weight and bias.

    Returns
    -------
    dx, dweight, dbias : DeviceArray or None
        Shapes (N, C, H, W), (O, C / groups, kH, kW) and (O,); None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `conv2d_forward`, and if dy has not the shape and type of the output.
    """
    *arrays, g, needs = checks.conv2d_gradient(dy, x, weight, stride, padding, dilation, groups, needs)
    dy, x, weight = on_device(*arrays)
    dx = scatter(dy, weight, None, g, (g.oH, g.oW), (g.H, g.W)) if needs[0] else None
    dweight = weight_gradient(dy, x, weight.shape, g) if needs[1] else None
    dbias = channel_sums(dy.reshape(*dy.shape[:2], g.oH * g.oW)) if needs[2] else None
    return dx, dweight, dbias
