"""Transposed convolution: the adjoint of ``conv2d``, computed by its kernels with input and output exchanged."""

from kernels import checks
from kernels.cpu.conv2d import gather, gradient, scatter
from kernels.cpu.weight_gradient import channel_sums


def conv_transpose2d_forward(x, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Spread pictures out with a kernel, as PyTorch's ``conv_transpose2d`` does.

    Every input pixel adds ``weight[c, o] * x[n, c, iy, ix]`` to the output around it: input row ``iy`` reaches output
    rows ``stride * iy - padding + dilation * ky``, likewise for columns. ``bias[o]`` is added once.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W), float32 or float64
        Pictures.
    weight : ndarray, shape (C, O / groups, kH, kW)
        Kernels, of the same type as ``x``.
    bias : ndarray, shape (O,), optional
        What is added to each output channel.
    stride, padding : int or (int, int)
        Of the convolution that this is the adjoint of; vertical, horizontal.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and right, smaller than the larger of stride and dilation: several
        picture sizes give a convolution the same output size, and this chooses one.
    dilation : int or (int, int)
        As stride.
    groups : int
        Into how many independent groups the channels are divided.

    Returns
    -------
    ndarray, shape (N, O, oH, oW)
        ``oH = (H - 1) * stride - 2 * padding + dilation * (kH - 1) + output_padding + 1``, and likewise ``oW``.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together, or nothing of the output would remain.
    """
    x, weight, bias, g = checks.conv_transpose2d(x, weight, bias, stride, padding, output_padding, dilation, groups)
    return scatter(x, weight, bias, g, (g.oH, g.oW))


def conv_transpose2d_backward(
    dy, x, weight, stride=1, padding=0, output_padding=0, dilation=1, groups=1, *, needs=(True, True, True)
):
    """Return the gradients of a transposed convolution.

    Parameters
    ----------
    dy : ndarray, shape (N, O, oH, oW)
        Gradient of the loss with respect to the output.
    x, weight, stride, padding, output_padding, dilation, groups
        As they were given to ``conv_transpose2d_forward``.
    needs : (bool, bool, bool)
        Which of the gradients are wanted.

    Returns
    -------
    dx : ndarray or None, shape (N, C, H, W)
        Gradient with respect to ``x``.
    dweight : ndarray or None, shape (C, O / groups, kH, kW)
        Gradient with respect to ``weight``.
    dbias : ndarray or None, shape (O,)
        Gradient with respect to the bias.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together.
    """
    dy, x, weight, g, needs = checks.conv_transpose2d_gradient(
        dy, x, weight, stride, padding, output_padding, dilation, groups, needs
    )
    dx = gather(dy, weight, None, g, (g.H, g.W)) if needs[0] else None
    # the convolution that this is the adjoint of takes dy to x
    dweight = gradient(x, dy, weight.shape, g) if needs[1] else None
    dbias = channel_sums(dy) if needs[2] else None
    return dx, dweight, dbias
