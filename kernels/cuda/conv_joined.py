"""A convolution of two arrays side by side, which nobody has joined: the sum of two convolutions.

The maps of a U-Net's decoder are large, and its weights are few. Joining the maps reads and writes all of them once,
and splitting the gradient does so again. Here the weights are cut in two instead: forward, the second half of the
channels is convolved with what the first half gave as its residual; backward, each half has a gradient of its own.
"""

from kernels import checks
from kernels.cuda.array import on_device
from kernels.cuda.channel_sums import channel_sums
from kernels.cuda.concat import concat_backward, concat_forward
from kernels.cuda.correlation import Ending, gather, scatter
from kernels.cuda.weight_gradient import weight_gradient


def gather_both(x, more, weight, bias, g, ending):
    """Return the convolution of arrays on the device, as if they were joined along the channels.

    Parameters
    ----------
    x, more : DeviceArray, shape (N, C, H, W)
        The halves of the channels.
    weight : DeviceArray, shape (O, 2 C / groups, kH, kW)
        Kernels.
    bias : DeviceArray or None
        Added to each output channel.
    g : ConvGeometry
        Of 2 C channels.
    ending : correlation.Ending
        What happens to the sums.

    Returns
    -------
    DeviceArray, shape (N, O, oH, oW)

    Notes
    -----
    They are joined after all where groups of channels may lie in both, or the output, which is written and read once
    more, is larger than both.
    """
    how = g, (g.H, g.W), (g.oH, g.oW)
    if g.groups > 1 or g.N * g.O * g.oH * g.oW > 2 * x.size:
        return gather(concat_forward([x, more]), weight, bias, *how, ending)
    left, right = _halves(weight)
    first = gather(x, left, bias, *how, ending._replace(relu=False))
    return gather(more, right, None, *how, Ending(ending.scale, first, ending.relu))


def conv2d_joined_backward(
    dy, x, more, weight, stride=1, padding=0, dilation=1, groups=1, *, needs=(True, True, True)
):  # fmt: skip
    """Return the gradients of a convolution of ``x`` and ``more``, as if these were joined along the channels.

    Its forward pass is ``conv2d_relu_forward`` with ``more`` channels and without a ReLU.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, O, oH, oW)
        Gradient of the loss with respect to the output, float32 or float64.
    x, more : ndarray or DeviceArray, shape (N, C, H, W)
        The first and the second half of the input channels.
    weight, stride, padding, dilation, groups
        As for ``conv2d_forward``, for 2 C input channels.
    needs : (bool, bool, bool)
        Which of the gradients are wanted: those of both inputs, of the weight, and of the bias.

    Returns
    -------
    dx, dmore : DeviceArray or None, shape (N, C, H, W)
        Gradients with respect to ``x`` and ``more``.
    dweight : DeviceArray or None, shape (O, 2 C / groups, kH, kW)
        Gradient with respect to ``weight``.
    dbias : DeviceArray or None, shape (O,)
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
    dy, x, more, weight = on_device(dy, x, checks.like_x("more", more, x), weight)
    dx, dmore, dweight = None, None, None
    how = None, g, (g.oH, g.oW), (g.H, g.W)
    if g.groups > 1:  # which may lie in both
        if needs[0]:
            dx, dmore = concat_backward(scatter(dy, weight, *how), [x.shape[1]] * 2)
        dweight = weight_gradient(dy, concat_forward([x, more]), weight.shape, g) if needs[1] else None
    else:
        halves = _halves(weight)
        if needs[0]:
            dx, dmore = (scatter(dy, half, *how) for half in halves)
        if needs[1]:
            parts = [weight_gradient(dy, a, half.shape, g) for a, half in zip((x, more), halves, strict=True)]
            dweight = concat_forward(parts)
    dbias = channel_sums(dy.reshape(*dy.shape[:2], g.oH * g.oW)) if needs[2] else None
    return dx, dmore, dweight, dbias


def _halves(weight):
    """Return the weights of the first and of the second half of the input channels."""
    return concat_backward(weight, [weight.shape[1] // 2] * 2)
