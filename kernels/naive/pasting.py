"""Pasting: the mask of each object, predicted as M x M values over its box, is laid into the picture.

Bilinear resizing would repeat the mask's border beyond the centres of its outermost values. So that masks fade out
instead, each gets a border of zeros one value wide, and its box grows with it by (M + 2) / M about its centre. The
grown corners are truncated to whole pixels, both ends belong to the box, and

    height = bottom - top + 1                                  (at least 1; widths likewise)
    place  = max(0, (iy - top + 1/2) * (M + 2) / height - 1/2)
    y[n, 0, iy, ix] = the padded mask, blended of its four values about the places of iy and ix

for the pixels of the box that lie in the picture, and 0 elsewhere. All this is torchvision's convention.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def paste_masks(masks, boxes, image_size):
    """Lay each mask into a picture of its own, where its box is.

    Parameters
    ----------
    masks : ndarray, shape (N, 1, M, M)
        Values over each box, float32 or float64.
    boxes : ndarray, shape (N, 4)
        Boxes (x1, y1, x2, y2) in picture pixels, of the same type; they may reach beyond the picture.
    image_size : int or pair of int
        Height and width of the pictures.

    Returns
    -------
    ndarray, shape (N, 1, H, W)
        The masks in the picture; 0 outside their boxes.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If shapes do not fit, or a coordinate is not finite or beyond 2**30.

    Notes
    -----
    Follows torchvision's ``paste_masks_in_image`` with a padding of 1, in the type of the masks.
    """
    masks, boxes, (H, W) = checks.paste_masks(masks, boxes, image_size)
    y = np.zeros((masks.shape[0], 1, H, W), masks.dtype)
    padded = np.pad(masks, ((0, 0), (0, 0), (1, 1), (1, 1)))
    _paste_masks_kernel(y, padded, boxes, masks.dtype.type(padded.shape[2] / masks.shape[2]), masks.dtype.type(0.5))
    return y


@jit
def _grown(low, high, scale, half):
    """Return first and last pixel of a box along one axis, grown about its centre."""
    radius = (high - low) * half * scale
    centre = (high + low) * half
    return int(centre - radius), int(centre + radius)


@jit
def _place(pixel, step, half, size):
    """Return the two places of the padded mask that a pixel lies between along one axis, and how far along it is."""
    position = max(type(half)(0), (pixel + half) * step - half)
    low = min(int(np.floor(position)), size - 1)
    return low, min(low + 1, size - 1), position - type(half)(low)


@jit
def _paste_masks_kernel(y, masks, boxes, scale, half):
    """Visit the pixels of each grown box that lie in the picture."""
    N, _, H, W = y.shape
    size = masks.shape[2]
    kind = y.dtype.type
    one = kind(1)
    for n in range(N):
        x1, y1, x2, y2 = boxes[n]
        left, right = _grown(x1, x2, scale, half)
        top, bottom = _grown(y1, y2, scale, half)
        step_y = kind(size) / kind(max(bottom - top + 1, 1))
        step_x = kind(size) / kind(max(right - left + 1, 1))
        for iy in range(max(top, 0), min(bottom + 1, H)):
            for ix in range(max(left, 0), min(right + 1, W)):
                low_y, high_y, fy = _place(kind(iy - top), step_y, half, size)
                low_x, high_x, fx = _place(kind(ix - left), step_x, half, size)
                above = (one - fx) * masks[n, 0, low_y, low_x] + fx * masks[n, 0, low_y, high_x]
                below = (one - fx) * masks[n, 0, high_y, low_x] + fx * masks[n, 0, high_y, high_x]
                y[n, 0, iy, ix] = (one - fy) * above + fy * below
