"""Smooth random fields and blurring, in NumPy: what synthetic pictures and elastic deformation share."""

import functools

import numpy as np


@functools.lru_cache(maxsize=256)
def _cubic_weights(length, spacing):
    """Return (length, knots) float32: the weights by which values at knots every ``spacing`` pixels make a curve.

    The curve goes through the knots: cubic convolution with a = -1/2 (Keys 1981, "Cubic convolution interpolation
    for digital image processing"). One knot lies before the picture and enough behind it that no border shows.
    """
    position = np.arange(length) / spacing + 1
    left = np.floor(position).astype(np.int64)
    knots = int(left[-1]) + 3 if length else 4
    weights = np.zeros((length, knots), np.float32)
    for step in (-1, 0, 1, 2):
        t = np.abs(position - (left + step))
        near = 1.5 * t**3 - 2.5 * t**2 + 1
        far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        weights[np.arange(length), left + step] = np.where(t <= 1, near, np.where(t < 2, far, 0))
    weights.flags.writeable = False
    return weights


def smooth_field(rng, size, spacing, count=None):
    """Return smooth random fields: independent normal numbers on a coarse grid, cubic curves between them.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the numbers.
    size : (int, int)
        Height and width, in pixels.
    spacing : float
        Distance of the grid's points, in pixels.
    count : int, optional
        How many fields; without it one, with no axis for it.

    Returns
    -------
    ndarray
        (H, W) or (count, H, W) float32, of mean 0 and standard deviation 1 at the grid's points (less between).
    """
    down, across = _cubic_weights(size[0], spacing), _cubic_weights(size[1], spacing)
    grid = rng.standard_normal((count or 1, down.shape[1], across.shape[1]), dtype=np.float32)
    fields = down @ grid @ across.T
    return fields[0] if count is None else fields


def gaussian_blur(a, sigma):
    """Blur the last two axes of an array by a Gaussian, cut at 3 ``sigma``; the border is mirrored.

    Parameters
    ----------
    a : ndarray
        (..., H, W) float.
    sigma : float
        Standard deviation, in pixels; 0 changes nothing.

    Returns
    -------
    ndarray
        Of the same shape and dtype.
    """
    radius = int(3 * sigma + 0.5)
    if radius == 0:
        return a.copy()
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(a.dtype)
    for axis in (-2, -1):
        length = a.shape[axis]
        pad = [(0, 0)] * a.ndim
        pad[axis] = (radius, radius)
        padded = np.moveaxis(np.pad(a, pad, mode="symmetric"), axis, 0)
        total = weights[0] * padded[radius : radius + length]
        for k in range(1, radius + 1):
            pair = padded[radius - k : radius - k + length] + padded[radius + k : radius + k + length]
            pair *= weights[k]
            total += pair
        a = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(a)
