"""Scalar formulas that several kernels share: plain Python, which each backend compiles for its own machine.

Nothing here touches an array. Results have the type of the arguments, if the caller keeps to one type: Numba computes
``float32 * 0.5`` in float64, so constants come in as arguments or as sums of them.
"""

import math


def nearest_source(position, step, size):
    """Return the input pixel that nearest-neighbour resizing reads.

    Parameters
    ----------
    position : float
        Index of the output pixel along its axis.
    step : float
        Input pixels from one output pixel to the next.
    size : int
        Number of input pixels along the axis.

    Returns
    -------
    int
        ``floor(position * step)``, at most the last pixel.

    Notes
    -----
    PyTorch's convention. Float32 arithmetic, whatever the type of the picture.
    """
    return min(int(math.floor(position * step)), size - 1)


def bilinear_source(position, step, size, half):
    """Return the two input pixels that bilinear resizing blends along an axis, and the weight of the second.

    Parameters
    ----------
    position : float
        Index of the output pixel along its axis.
    step : float
        Input pixels from one output pixel to the next.
    size : int
        Number of input pixels along the axis.
    half : float
        0.5 where pixels are squares whose centres lie at half positions, 0 where the corners' centres are aligned.

    Returns
    -------
    low, high : int
        The pixels before and after the position; the same one at the end.
    weight : float
        Weight of ``high``; that of ``low`` is what is left to 1.

    Notes
    -----
    PyTorch's convention. Arithmetic in the type of the picture.
    """
    place = max(step * (position + half) - half, half - half)
    low = min(int(math.floor(place)), size - 1)
    high = min(low + 1, size - 1)
    weight = min(place - type(place)(low), type(place)(1))
    return low, high, weight
