"""What all losses share: from one loss per element to the loss asked for, and its gradient back to the elements.

    none: the losses themselves        sum: their sum        mean: their sum divided by their number

A loss over nothing is 0, and so is its gradient. Losses are summed in float64 and returned in the type of the scores.
"""

import numpy as np


def reduce(losses, reduction, dtype, shape, count=None):
    """Return the loss of the caller's shape and type.

    Parameters
    ----------
    losses : ndarray of float64, shape (M,)
        One loss per element.
    reduction : {"none", "mean", "sum"}
        What to make of them.
    dtype : dtype
        Type of the result.
    shape : tuple of int
        Shape of the result where it is not reduced.
    count : float, optional
        What a mean divides by; the number of losses if not given.

    Returns
    -------
    ndarray
        Of the given shape with "none", otherwise with no axes.
    """
    if reduction == "none":
        return losses.astype(dtype).reshape(shape)
    total = np.float64(0)
    for loss in losses:
        total += loss
    if reduction == "mean":
        total = total * _share(losses, count)
    return np.asarray(total, dtype)


def spread(dy, losses_shape, reduction, count=None):
    """Return the gradient of each element's loss: dy itself, dy for all, or dy divided by their number.

    Parameters
    ----------
    dy : ndarray
        Gradient of the reduced loss.
    losses_shape : tuple of int
        Shape of the losses before reduction.
    reduction : {"none", "mean", "sum"}
        How they were reduced.
    count : float, optional
        As in `reduce`.

    Returns
    -------
    ndarray of float64, shape (M,)
        One gradient per loss.
    """
    gradients = np.empty(losses_shape, np.float64).reshape(-1)
    gradients[:] = dy.reshape(-1) if reduction == "none" else dy
    if reduction == "mean":
        gradients *= _share(gradients, count)
    return gradients


def _share(losses, count):
    """Return one over the number that a mean divides by, or 0 for a mean of nothing."""
    count = len(losses) if count is None else count
    return 1 / count if count else 0.0
