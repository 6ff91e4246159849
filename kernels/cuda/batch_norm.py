"""Batch normalisation: the passes over memory are those of ``normalising``."""

from kernels import checks
from kernels.cuda.array import on_device
from kernels.cuda.normalising import gradients, normalise


def batch_norm_forward(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """Normalise each channel to mean 0 and variance 1, then scale by gamma and shift by beta.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C, H, W)
        Pictures, float32 or float64.
    gamma, beta : ndarray or DeviceArray, shape (C,), or None
        Scale and shift of each channel, of x's type; None means 1 and 0.
    running_mean, running_var : ndarray or DeviceArray, shape (C,), or None
        Averages over the batches seen so far. Updated in place in training, where both may be None; used in evaluation.
        Those of the host are copied to the device and, in training, back.
    training : bool
        Whether the batch's own statistics normalise it, and update the running ones.
    momentum : float
        Share of this batch in the running statistics.
    eps : float
        Added to the variance.

    Returns
    -------
    y : DeviceArray, shape (N, C, H, W)
        The normalised pictures.
    mean, inv_std : DeviceArray, shape (C,)
        What normalised them, for `batch_norm_backward`; zeros for an empty batch in training, which has no statistics.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not x's.
    ValueError
        If shapes do not fit each other, if training has one value per channel, if evaluation has no running statistics,
        or if in training these cannot be written to.

    Notes
    -----
    Follows ``torch.nn.functional.batch_norm``.
    """
    checked = checks.batch_norm(x, gamma, beta, running_mean, running_var, training, momentum, eps)
    return normalise(*checked)[:3]


def batch_norm_backward(dy, x, gamma, mean, inv_std, training):
    """Return the gradients of a batch normalisation.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, C, H, W)
        Gradient of the output.
    x, gamma, training
        As given to `batch_norm_forward`.
    mean, inv_std : ndarray or DeviceArray, shape (C,)
        As returned by it.

    Returns
    -------
    dx : DeviceArray, shape (N, C, H, W)
        Gradient of x.
    dgamma, dbeta : DeviceArray, shape (C,)
        Gradients of scale and shift, also where gamma is None (as if it were 1).

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other.
    """
    dy, x, gamma, mean, inv_std, training = checks.batch_norm_gradient(dy, x, gamma, mean, inv_std, training)
    dy, x, gamma, mean, inv_std = on_device(dy, x, gamma, mean, inv_std)
    return gradients(dy, x, mean, (gamma, 0), (inv_std, 0), training)[:3]
