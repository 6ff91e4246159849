"""What the losses have in common: an array of single losses, or one sum per block, and then their sum or mean."""

import math

import numpy as np

from kernels.cpu.blocks import block_count
from kernels.cpu.memory import empty


def buffers(shape, reduction, dtype, blocks=None):
    """Return where a task puts single losses (of size 0 unless ``reduction`` is "none"), and the sum of its block."""
    losses = empty(shape if reduction == "none" else (0,), dtype)
    return losses, np.zeros((1, block_count(math.prod(shape)) if blocks is None else blocks))


def reduced(losses, sums, count, reduction):
    """Return the loss: ``losses`` themselves, or the total of ``sums``, divided by ``count`` for the mean.

    The mean over nothing is 0: PyTorch's would be NaN, and ruin the weights of a network at a picture without objects.
    """
    if reduction == "none":
        return losses
    with np.errstate(all="ignore"):
        total = sums.sum()
        if reduction == "mean":
            total = total / count if count else 0.0
        return np.asarray(total, losses.dtype)


def upstream(dy, count, reduction):
    """Return the gradient of the sum of losses: one number, or one for each loss."""
    if reduction == "mean":
        with np.errstate(all="ignore"):
            dy = np.asarray(dy.astype(np.float64) / count if count else 0.0, dy.dtype)
    return dy


def factors(dy, weight=None):
    """Return what each gradient is multiplied by: one number, or an array for each loss (else None)."""
    if weight is not None:
        with np.errstate(all="ignore"):
            return 1.0, weight * dy.reshape(weight.shape if dy.size == weight.size else ())
    return (float(dy.reshape(())), None) if dy.size == 1 else (1.0, dy)
