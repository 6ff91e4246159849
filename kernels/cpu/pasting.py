"""Pasting of masks. One task pastes one mask: first its columns are resized to the visible ones, once for all rows.

Each visible row of the picture is then a blend of two of those, many columns at once. Pixels outside the boxes are
never touched: the zeros they need come from the system, page by page as they are read.
"""

import numpy as np
from numba import prange

from kernels import checks, scalar_math
from kernels.cpu import memory
from kernels.jit import jit

_bilinear_source = jit(scalar_math.bilinear_source)


def paste_masks(masks, boxes, image_size):
    """Lay each mask into a picture of its own, where its box is.

    Parameters
    ----------
    masks : ndarray, (N, 1, M, M), float32 or float64
        Values over each box.
    boxes : ndarray, (N, 4)
        Boxes (x1, y1, x2, y2) in picture pixels, of the same type; they may reach beyond the picture.
    image_size : int or pair of int
        Height and width of the pictures.

    Returns
    -------
    ndarray, (N, 1, H, W)
        The masks in the picture; 0 outside their boxes.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If shapes do not fit, or a coordinate is not finite or beyond 2**30.

    Notes
    -----
    As torchvision's ``paste_masks_in_image``: each mask gets a border of zeros, and its box grows to match.
    """
    masks, boxes, image_size = checks.paste_masks(masks, boxes, image_size)
    y = memory.zeros((masks.shape[0], 1, *image_size), masks.dtype)
    if y.size:
        padded = np.pad(masks[:, 0], ((0, 0), (1, 1), (1, 1)))
        _paste_masks_kernel(y[:, 0], padded, _grown(boxes, masks.shape[2]), masks.dtype.type(0.5))
    return y


def _grown(boxes, size):
    """Return boxes that have grown about their centres with a border of one value, truncated to whole pixels."""
    kind = boxes.dtype.type
    low, high = boxes[:, :2], boxes[:, 2:]
    radius = (high - low) * kind(0.5) * kind((size + 2) / size)
    centre = (high + low) * kind(0.5)
    return np.concatenate([centre - radius, centre + radius], axis=1).astype(np.int64)


@jit(parallel=True)
def _paste_masks_kernel(y, masks, boxes, half):
    for n in prange(y.shape[0]):
        _paste(np.int64(n), y, masks, boxes, half)


@jit
def _paste(n, y, masks, boxes, half):
    y, mask = y[n], masks[n]
    kind = y.dtype.type
    left, top, right, bottom = boxes[n]
    size = mask.shape[0]
    one = half + half
    first, last = max(left, 0), min(right + 1, y.shape[1])
    if last <= first:
        return
    resized = np.empty((size, last - first), y.dtype)
    step = kind(size) / kind(max(right - left + 1, 1))
    for column in range(last - first):
        low, high, weight = _bilinear_source(kind(first + column - left), step, size, half)
        for row in range(size):
            resized[row, column] = (one - weight) * mask[row, low] + weight * mask[row, high]
    step = kind(size) / kind(max(bottom - top + 1, 1))
    for row in range(max(top, 0), min(bottom + 1, y.shape[0])):
        low, high, weight = _bilinear_source(kind(row - top), step, size, half)
        _blend(y[row, first:last], resized[low], resized[high], weight, one - weight)


@jit
def _blend(y, above, below, weight, rest):
    for i in range(y.size):
        y[i] = rest * above[i] + weight * below[i]
