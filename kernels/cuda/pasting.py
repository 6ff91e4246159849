"""Pasting of masks. A thread takes a column of one picture, and goes through some of its rows.

Neighbouring threads take neighbouring columns, so that a warp writes 32 neighbouring pixels: writing is what takes the
time, as pictures are mostly zeros. Where a column lies in the mask is worked out once for its rows; masks are small and
come from the cache. The border of zeros around a mask is never stored: places there are read as 0.
"""

import math

from numba.types import int64

from kernels import checks
from kernels.checks.boxes import FARTHEST
from kernels.cuda import verdicts
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import SIMULATED, cuda, device_function, rounded_product, tile, typed_kernel

THREADS = tile(128, 4)
#: Rows that a thread goes through, about.
_ROWS = 16


def paste_masks(masks, boxes, image_size):
    """Lay each mask into a picture of its own, where its box is.

    Parameters
    ----------
    masks : ndarray or DeviceArray, shape (N, 1, M, M)
        Values over each box, float32 or float64.
    boxes : ndarray or DeviceArray, shape (N, 4)
        Boxes (x1, y1, x2, y2) in picture pixels, of the same type; they may reach beyond the picture. Those on the
        device are checked there, and a number is copied back.
    image_size : int or pair of int
        Height and width of the pictures.

    Returns
    -------
    DeviceArray, shape (N, 1, H, W)
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
    masks, boxes, (height, width) = checks.paste_masks(masks, boxes, image_size)
    verdicts.finite(lambda values: checks.paste_masks(masks, values, image_size), boxes, limits=[FARTHEST])
    masks, boxes = on_device(masks, boxes)
    count, _, size, _ = masks.shape
    y = empty((count, 1, height, width), masks.dtype)
    if y.size:
        parts = min(-(-height // _ROWS), 65_535)
        grid = (2, 2, 1) if SIMULATED else (-(-width // THREADS), parts, min(count, 65_535))
        scale = masks.dtype.type((size + 2) / size)
        _paste_masks_kernel.run(grid, THREADS, y.raw, masks.raw, boxes.raw, count, height, width, size, scale)
    return y


@typed_kernel(lambda T: (T[::1], T[::1], T[::1], int64, int64, int64, int64, T), threads=THREADS)
def _paste_masks_kernel(T):
    times = rounded_product(T)

    @device_function
    def grown(low, high, scale):
        """Return first and last pixel of a box along one axis, grown about its centre."""
        radius = times(times(high - low, T(0.5)), scale)
        centre = times(high + low, T(0.5))
        return int64(centre - radius), int64(centre + radius)

    @device_function
    def place_of(pixel, low, high, size):
        """Return the place of the padded mask before a pixel, the one after it, and how far along the pixel is."""
        step = T(size) / T(max(high - low + 1, 1))
        position = max(T(0), times(T(pixel - low) + T(0.5), step) - T(0.5))
        before = min(int64(math.floor(position)), size - 1)
        return before, min(before + 1, size - 1), position - T(before)

    @device_function
    def value_at(masks, base, row, column, size):
        """Return a value of the padded mask."""
        if row < 1 or column < 1 or row > size or column > size:
            return T(0)
        return masks[base + (row - 1) * size + column - 1]

    def paste_masks_kernel(y, masks, boxes, count, height, width, size, scale):
        for n in range(cuda.blockIdx.z, count, cuda.gridDim.z):
            left, right = grown(boxes[4 * n], boxes[4 * n + 2], scale)
            top, bottom = grown(boxes[4 * n + 1], boxes[4 * n + 3], scale)
            base = n * size * size
            for column in range(cuda.grid(1), width, cuda.gridsize(1)):
                inside = left <= column and column <= right
                x0, x1, part_x = place_of(column if inside else left, left, right, size + 2)
                for row in range(cuda.blockIdx.y, height, cuda.gridDim.y):
                    value = T(0)
                    if inside and top <= row and row <= bottom:
                        y0, y1, part_y = place_of(row, top, bottom, size + 2)
                        rest = T(1) - part_x
                        above = rest * value_at(masks, base, y0, x0, size) + part_x * value_at(
                            masks, base, y0, x1, size
                        )
                        below = rest * value_at(masks, base, y1, x0, size) + part_x * value_at(
                            masks, base, y1, x1, size
                        )
                        value = (T(1) - part_y) * above + part_y * below
                    y[(n * height + row) * width + column] = value

    return paste_masks_kernel
