"""Batch normalisation: see `kernels.cpu.normalising` for the kernels."""

from kernels import checks
from kernels.cpu.normalising import gradients, normalise, plain_statistics, plain_table


def batch_norm_forward(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """Normalise each channel to mean 0 and variance 1, then scale it by ``gamma`` and shift it by ``beta``.

    Parameters
    ----------
    x : ndarray, (N, C, H, W), float32 or float64
        Input.
    gamma, beta : ndarray, (C,), or None
        Scale and shift; None means 1 and 0.
    running_mean, running_var : ndarray, (C,), or None
        Running statistics; both or neither. In training they are updated in place: ``momentum`` parts of the batch's
        mean and unbiased variance, the rest of the old value. Otherwise they normalise.
    training : bool
        Whether the batch's own mean and (biased) variance normalise.
    momentum : float
        Share of the batch in the running statistics.
    eps : float
        Added to the variance.

    Returns
    -------
    y : ndarray, (N, C, H, W)
        Output.
    mean, inv_std : ndarray, (C,)
        What normalised the channels: the mean, and 1 / sqrt(variance + eps). Zeros for a batch of none in training.

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or the types differ.
    ValueError
        If a shape does not fit, running statistics are missing or cannot be written to, or a channel has only one value
        in training.

    Notes
    -----
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    2015. A batch of none leaves the running statistics as they are.
    """
    checked = checks.batch_norm(x, gamma, beta, running_mean, running_var, training, momentum, eps)
    y, table = normalise(checked, None, relu=False)
    return y, *plain_statistics(table, y.dtype)


def batch_norm_backward(dy, x, gamma, mean, inv_std, training):
    """Return the gradients of a batch normalisation.

    Parameters
    ----------
    dy : ndarray, (N, C, H, W), float32 or float64
        Gradient of the output.
    x : ndarray, (N, C, H, W)
        The input.
    gamma : ndarray, (C,), or None
        The scale; None means 1.
    mean, inv_std : ndarray, (C,)
        What ``batch_norm_forward`` returned.
    training : bool
        Whether mean and variance came from ``x`` itself, so that the gradient also flows through them.

    Returns
    -------
    dx : ndarray, (N, C, H, W)
        Gradient of ``x``.
    dgamma, dbeta : ndarray, (C,)
        Gradients of ``gamma`` and ``beta``.

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or the types differ.
    ValueError
        If a shape does not fit.
    """
    dy, x, gamma, mean, inv_std, training = checks.batch_norm_gradient(dy, x, gamma, mean, inv_std, training)
    return gradients(dy, x, plain_table(gamma, mean, inv_std), training, relu=False)[:3]
