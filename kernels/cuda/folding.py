"""What a batch norm of fixed statistics is to the convolution before it: a scale and a shift of each channel."""

import math

from numba.types import boolean, float64, int64

from kernels import checks
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, kernel


def folded_batch_norm(running_mean, running_var, gamma, beta, bias, eps=1e-5):
    """Return what a normalisation multiplies weights by, and what it makes of the bias.

    Parameters
    ----------
    running_mean, running_var : ndarray or DeviceArray, shape (C,)
        Statistics, float32 or float64.
    gamma, beta, bias : ndarray or DeviceArray, shape (C,), or None
        Scale and shift of the normalisation, and what the convolution adds.
    eps : float
        Added to the variance.

    Returns
    -------
    scale, shift : DeviceArray, shape (C,)
        ``gamma / sqrt(running_var + eps)`` and ``(bias - running_mean) * scale + beta``, computed in float64.

    Raises
    ------
    TypeError, ValueError
        If types or shapes differ.
    """
    mean = checks.array("running_mean", running_mean, 1)
    others = {"running_var": running_var, "gamma": gamma, "beta": beta, "bias": bias}
    var, gamma, beta, bias = (
        None if a is None and name != "running_var" else checks.same_shape(
            name, checks.array(name, a, 1, mean.dtype), mean.shape, "the shape of running_mean"
        )
        for name, a in others.items()
    )  # fmt: skip
    mean, var, gamma, beta, bias = on_device(mean, var, gamma, beta, bias)
    scale, shift = empty(mean.shape, mean.dtype), empty(mean.shape, mean.dtype)
    arrays = ((mean if a is None else a).raw for a in (gamma, beta, bias))
    there = (a is not None for a in (gamma, beta, bias))
    _fold_kernel.over(mean.size, scale.raw, shift.raw, mean.raw, var.raw, *arrays, *there, float(eps), mean.size)
    return scale, shift


@kernel(lambda T: (*(T[::1],) * 7, boolean, boolean, boolean, float64, int64))
def _fold_kernel(scale, shift, mean, var, gamma, beta, bias, has_gamma, has_beta, has_bias, eps, channels):
    for channel in range(cuda.grid(1), channels, cuda.gridsize(1)):
        factor = 1 / math.sqrt(float64(var[channel]) + eps)
        if has_gamma:
            factor *= gamma[channel]
        start = float64(bias[channel]) if has_bias else float64(0)
        added = (start - mean[channel]) * factor
        if has_beta:
            added += beta[channel]
        scale[channel], shift[channel] = factor, added
