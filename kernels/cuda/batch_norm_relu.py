"""Batch normalisation, a residual and a ReLU in one: what lies between them is never written to memory.

Normalising adds the residual and applies the ReLU as it writes. Backward, both passes find out again what the ReLU
stopped: from y where there is a residual, else from x, by the same operations in the same order as forward.

Every value is that of `batch_norm_forward`, `add_forward` and `relu_forward` one after the other, bit for bit, and so
are the gradients.
"""

from kernels import checks
from kernels.checks.arguments import array, same_shape
from kernels.cuda.array import on_device
from kernels.cuda.moments import ROWS
from kernels.cuda.normalising import gradients, normalise


def batch_norm_relu_forward(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5, residual=None):
    """Return ``relu(batch_norm(x) + residual)``.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C, H, W)
        Pictures, float32 or float64.
    gamma, beta, running_mean, running_var, training, momentum, eps
        As in `batch_norm_forward`.
    residual : ndarray or DeviceArray, shape (N, C, H, W), or None
        What is added before the ReLU, of x's type.

    Returns
    -------
    y : DeviceArray, shape (N, C, H, W)
        The output.
    statistics : DeviceArray, shape (5, C)
        What normalised the channels, for `batch_norm_relu_backward`, of x's type.

    Raises
    ------
    TypeError, ValueError
        As in `batch_norm_forward`; if ``residual`` is not of x's type and shape.
    """
    checked = checks.batch_norm(x, gamma, beta, running_mean, running_var, training, momentum, eps)
    (residual,) = on_device(checks.like_x("residual", residual, checked[0]))
    y, _, _, statistics = normalise(*checked, residual=residual, relu=True)
    return y, statistics


def batch_norm_relu_backward(dy, x, statistics, training, y=None, affine=True):
    """Return the gradients of ``relu(batch_norm(x) + residual)``.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, C, H, W)
        Gradient of the output.
    x : ndarray or DeviceArray, shape (N, C, H, W)
        The input.
    statistics : DeviceArray, shape (5, C)
        What `batch_norm_relu_forward` returned; it holds ``gamma`` and ``beta`` as well.
    training : bool
        As in the forward call.
    y : ndarray or DeviceArray, shape (N, C, H, W), or None
        The output, if a residual was added: the ReLU stopped what is 0 there. Without a residual, that follows from x.
    affine : bool
        Whether the gradients of ``gamma`` and ``beta`` are wanted.

    Returns
    -------
    dx : DeviceArray, shape (N, C, H, W)
        Gradient of ``x``.
    dgamma, dbeta : DeviceArray, shape (C,), or None
        Gradients of ``gamma`` and ``beta``, if wanted.
    dresidual : DeviceArray, shape (N, C, H, W), or None
        Gradient of the residual.

    Raises
    ------
    TypeError
        If an array is not of its type.
    ValueError
        If a shape does not fit.
    """
    x = array("x", x, 4)
    dy, y = checks.like_x("dy", dy, x), checks.like_x("y", y, x)
    wanted = ROWS, x.shape[1]
    statistics = same_shape("statistics", array("statistics", statistics, 2, x.dtype), wanted, "as forward returned it")
    dy, x, statistics, y = on_device(dy, x, statistics, y)
    channels = x.shape[1]
    of_channels = (statistics, 4 * channels), (statistics, 3 * channels)
    results = gradients(dy, x, statistics, *of_channels, bool(training), relu=True, y=y)
    return results if affine else (results[0], None, None, results[3])
