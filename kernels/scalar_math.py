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


def round_half_away(value):
    """Round to a whole number, halves away from zero, as C's ``round`` does.

    Parameters
    ----------
    value : float
        What to round.

    Returns
    -------
    float
        A whole number of value's type. Exact: ``floor(value + 0.5)`` is not, since the sum itself is rounded.
    """
    real, size = type(value), abs(value)
    if size >= 1e15:  # whole already, and perhaps beyond the range of integers
        return value
    whole = real(math.floor(size))
    if size - whole >= real(0.5):
        whole += real(1)
    return whole if value >= 0 else -whole


def roi_sample(start, bin_size, grid, p, i):
    """Return where RoIAlign takes a sample along one axis.

    Parameters
    ----------
    start : float
        Where the box starts, in feature cells.
    bin_size : float
        Size of a bin, in feature cells; of start's type.
    grid : int
        Samples in a bin.
    p, i : int
        Which bin, and which of its samples.

    Returns
    -------
    float
        Position in feature cells. Every step is rounded in start's type, in torchvision's order: any other order
        can move a sample across the edge of the map.
    """
    real = type(start)
    return start + real(p) * bin_size + (real(i) + real(0.5)) * bin_size / real(grid)
