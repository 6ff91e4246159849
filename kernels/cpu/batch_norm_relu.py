"""Batch normalisation, a residual and a ReLU in one: half the memory traffic of the three operators.

Every value is, bit for bit, that of `batch_norm_forward`, `add_forward` and `relu_forward` one after the other, and of
their gradients; the array of the gradient between ReLU and normalisation is never made.
"""

from kernels import checks
from kernels.cpu.normalising import gradients, normalise


def batch_norm_relu_forward(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5, residual=None):
    """Return ``relu(batch_norm(x) + residual)``.

    Parameters
    ----------
    x : ndarray, (N, C, H, W), float32 or float64
        Input.
    gamma, beta, running_mean, running_var, training, momentum, eps
        As in `batch_norm_forward`.
    residual : ndarray, (N, C, H, W), or None
        What is added before the ReLU, of x's type.

    Returns
    -------
    y : ndarray, (N, C, H, W)
        Output.
    statistics : ndarray of float64, (C, 8)
        What normalised the channels, for `batch_norm_relu_backward`.

    Raises
    ------
    TypeError, ValueError
        As in `batch_norm_forward`; if ``residual`` is not of x's type and shape.
    """
    checked = checks.batch_norm(x, gamma, beta, running_mean, running_var, training, momentum, eps)
    return normalise(checked, checks.like_x("residual", residual, checked[0]), relu=True)


def batch_norm_relu_backward(dy, x, statistics, training, y=None, affine=True):
    """Return the gradients of ``relu(batch_norm(x) + residual)``.

    Parameters
    ----------
    dy : ndarray, (N, C, H, W), float32 or float64
        Gradient of the output.
    x : ndarray, (N, C, H, W)
        The input.
    statistics : ndarray of float64, (C, 8)
        What `batch_norm_relu_forward` returned; it holds ``gamma`` and ``beta`` as well.
    training : bool
        As in the forward call.
    y : ndarray, (N, C, H, W), or None
        The output, if a residual was added: the ReLU stopped what is 0 there. Without a residual, that follows from x.
    affine : bool
        Whether the gradients of ``gamma`` and ``beta`` are wanted.

    Returns
    -------
    dx : ndarray, (N, C, H, W)
        Gradient of ``x``.
    dgamma, dbeta : ndarray, (C,), or None
        Gradients of ``gamma`` and ``beta``, if wanted.
    dresidual : ndarray, (N, C, H, W), or None
        Gradient of the residual.

    Raises
    ------
    TypeError
        If an array is not of its type.
    ValueError
        If a shape does not fit.
    """
    dy, x, statistics, y = checks.batch_norm_relu_gradient(dy, x, statistics, y)
    return gradients(dy, x, statistics, bool(training), relu=True, y=y, affine=affine)
