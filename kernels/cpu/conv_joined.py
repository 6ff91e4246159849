"""The gradients of a convolution of two arrays side by side, which nobody has joined.

Its forward pass is ``conv2d_relu_forward`` with ``more`` channels and without a ReLU.
"""

from kernels import checks
from kernels.cpu.conv2d import gradient, scatter
from kernels.cpu.conv_relu import check_more
from kernels.cpu.weight_gradient import channel_sums


def conv2d_joined_backward(
    dy, x, more, weight, stride=1, padding=0, dilation=1, groups=1, *, needs=(True, True, True)
):  # fmt: skip
    """Return the gradients of a convolution of ``x`` and ``more``, as if these were joined along the channels.

    The numbers are those of ``conv2d_backward`` and ``concat_backward``.

    Parameters
    ----------
    dy : ndarray, shape (N, O, oH, oW)
        Gradient of the loss with respect to the output.
    x, more : ndarray, shape (N, C, H, W)
        The first and the second half of the input channels.
    weight, stride, padding, dilation, groups
        As for ``conv2d_forward``, for 2 C input channels.
    needs : (bool, bool, bool)
        Which of the gradients are wanted: those of both inputs, of the weight, and of the bias.

    Returns
    -------
    dx, dmore : ndarray or None, shape (N, C, H, W)
        Gradients with respect to ``x`` and ``more``.
    dweight : ndarray or None, shape (O, 2 C / groups, kH, kW)
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
    parameters = stride, padding, dilation, groups
    dy, x, weight, g, needs = checks.conv2d_gradient(dy, x, weight, *parameters, needs, joined=2)
    more = check_more(more, x)
    dx, dmore = scatter(dy, weight, None, g, (g.H, g.W), halves=True) if needs[0] else (None, None)
    dweight = gradient(dy, x, weight.shape, g, more) if needs[1] else None
    dbias = channel_sums(dy) if needs[2] else None
    return dx, dmore, dweight, dbias
