"""Intersection over union. A thread takes one box of ``b``, and goes through some boxes of ``a`` with it.

Neighbouring threads take neighbouring boxes of ``b``, so that a warp writes 32 neighbouring numbers of a row: writing
is what takes the time. The box of ``a`` is the same for all of them, and is read once for all.
"""

from numba.types import int64

from kernels import checks
from kernels.cuda import verdicts
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, device_function, rounded_product, typed_kernel


def box_iou(a, b):
    """Return the intersection over union of each box of ``a`` with each of ``b``.

    Parameters
    ----------
    a : ndarray or DeviceArray, shape (N, 4)
        Boxes (x1, y1, x2, y2), float32 or float64. Those on the device are checked there, and a number is copied back.
    b : ndarray or DeviceArray, shape (M, 4)
        Boxes of the same type.

    Returns
    -------
    DeviceArray, shape (N, M)
        From 0 to 1, and NaN for two boxes without area.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If a shape is not (N, 4) or a coordinate is NaN or infinite.

    Notes
    -----
    Follows ``torchvision.ops.box_iou``.
    """
    a, b = checks.box_iou(a, b)
    verdicts.finite(checks.box_iou, a, b)
    a, b = on_device(a, b)
    iou = empty((len(a), len(b)), a.dtype)
    _box_iou_kernel.over_rows(*iou.shape, iou.raw, a.raw, b.raw, *iou.shape)
    return iou


def overlaps(T):
    """Return the functions for type T that compute the area of a box, and what two boxes have in common.

    Every product is rounded before it is added to, so that the results are those of the other backends.
    """
    times = rounded_product(T)

    @device_function
    def area_of(x1, y1, x2, y2):
        return times(x2 - x1, y2 - y1)

    @device_function
    def overlap_of(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2):
        return times(max(T(0), min(ax2, bx2) - max(ax1, bx1)), max(T(0), min(ay2, by2) - max(ay1, by1)))

    return area_of, overlap_of


@typed_kernel(lambda T: (T[::1], T[::1], T[::1], int64, int64))
def _box_iou_kernel(T):
    area_of, overlap_of = overlaps(T)

    def box_iou_kernel(iou, a, b, rows, columns):
        column, row = cuda.grid(2)
        columns_on, rows_on = cuda.gridsize(2)
        for j in range(column, columns, columns_on):
            bx1, by1, bx2, by2 = b[4 * j], b[4 * j + 1], b[4 * j + 2], b[4 * j + 3]
            area = area_of(bx1, by1, bx2, by2)
            for i in range(row, rows, rows_on):
                ax1, ay1, ax2, ay2 = a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3]
                overlap = overlap_of(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2)
                iou[i * columns + j] = overlap / (area_of(ax1, ay1, ax2, ay2) + area - overlap)

    return box_iou_kernel
