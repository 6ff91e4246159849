"""What the losses have in common: an array of single losses, or one sum per block, and then their sum or mean."""

import numpy as np

from kernels.cpu.blocks import block_count, flat


def buffers(shape, reduction, dtype, blocks=None):
    """Return where a kernel puts single losses (of size 0 unless ``reduction`` is "none") and the sum of each block."""
    losses = np.empty(shape if reduction == "none" else 0, dtype)
    return losses, np.zeros(block_count(int(np.prod(shape))) if blocks is None else blocks)


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
    """Return the flat gradient of the sum of losses: one number, or one for each loss."""
    if reduction == "mean":
        with np.errstate(all="ignore"):
            dy = np.asarray(dy.astype(np.float64) / count if count else 0.0, dy.dtype)
    return flat(dy)
