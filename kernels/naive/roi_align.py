"""RoIAlign: the mean of interpolated samples in each bin of each region of interest (He et al., arXiv:1703.06870).

Nothing is rounded. A box is scaled onto the feature map; cells are numbered by their centres, so that half a cell goes
off where ``aligned`` is True. Without, a box counts as at least one cell wide and high, as in the first version.

    start, end = x1 * spatial_scale - offset, x2 * spatial_scale - offset       offset 0.5 if aligned, else 0
    size       = end - start, at least 1 if not aligned
    bin        = size / output size
    grid       = sampling_ratio, or ceil(size / output size) if that is 0 or less ("adaptive")
    sample i   = start + p * bin + (i + 0.5) * bin / grid                       for i in 0 ... grid - 1

and likewise vertically. The grid of samples is that of both axes.

    y[k, c, py, px] = sum over the samples of value / (grid_y * grid_x)

The value of a sample interpolates linearly between the four cells around it. From -1 to H (or W), both included, a
sample is moved to the nearest place on the map; beyond, its value is 0. It counts in the mean all the same.

The arithmetic of coordinates is done in the type of x and in the order above: another order, or another precision,
can move a sample across the edge of the map.

A huge box has billions of samples, few of them on the map. Along an axis they are in order, so that those on the map
are found by bisection; rounding may put many at the same place, which are taken together.

Gradient. y is linear in x, with weights that come from the boxes alone, so the gradient of each output goes back to
the same cells with the same weights. The boxes get none.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit

#: An axis with more samples than this gives 0: the few on the map vanish in the mean.
MOST_SAMPLES = 2.0**62


def roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Average interpolated samples over each bin of each box.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
        Feature maps, float32 or float64.
    rois : ndarray, shape (K, 5)
        Batch index, x1, y1, x2, y2 of each box, in picture coordinates; of x's type.
    output_size : int or pair of int
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        Samples per bin and axis; 0 or less for as many as the bin has cells, rounded up.
    aligned : bool
        Whether cells are numbered by their centres, so that half a cell is subtracted from the scaled corners.

    Returns
    -------
    ndarray, shape (K, C, oH, oW)
        The means.

    Raises
    ------
    TypeError
        If x or rois has another type than float32 or float64, or they differ, or aligned is no bool.
    ValueError
        If a shape or parameter does not fit, a coordinate is not finite, a batch index is not that of a picture, or
        a box is reversed with ``aligned=True`` and adaptive sampling.

    Notes
    -----
    Follows ``torchvision.ops.roi_align``.
    """
    x, rois, (oh, ow), *how = checks.roi_align(x, rois, output_size, spatial_scale, sampling_ratio, aligned)
    y = np.empty((len(rois), x.shape[1], oh, ow), x.dtype)
    if y.size:
        with np.errstate(over="ignore", under="ignore"):  # without the JIT, NumPy would warn of samples far away
            _roi_align_kernel(y, x, rois, *how)
    return y


def roi_align_backward(dy, rois, input_shape, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Spread each output's gradient over the cells that it averages.

    Parameters
    ----------
    dy : ndarray, shape (K, C, oH, oW)
        Gradient of the output.
    rois : ndarray, shape (K, 5)
        As given to `roi_align_forward`.
    input_shape : tuple of int
        Shape (N, C, H, W) of the feature maps.
    spatial_scale, sampling_ratio, aligned
        As given to `roi_align_forward`.

    Returns
    -------
    ndarray, shape (N, C, H, W)
        Gradient of the feature maps.

    Raises
    ------
    TypeError, ValueError
        As in `roi_align_forward`.
    """
    dy, rois, input_shape, *how = checks.roi_align_gradient(
        dy, rois, input_shape, spatial_scale, sampling_ratio, aligned
    )
    dx = np.zeros(input_shape)  # float64: many samples may add to one cell
    if dy.size:
        with np.errstate(over="ignore", under="ignore"):
            _roi_align_gradient_kernel(dx, dy, rois, *how)
    return dx.astype(dy.dtype)


@jit
def _place(low, high, bins, spatial_scale, sampling_ratio, aligned):
    """Return where a box starts along one axis, the size of its bins, and the samples per bin."""
    T = type(low)
    offset = T(0.5 if aligned else 0.0)
    start, end = low * spatial_scale - offset, high * spatial_scale - offset
    size = end - start
    if not aligned:
        size = max(size, T(1))
    bin_size = size / T(bins)
    grid = np.float64(sampling_ratio if sampling_ratio > 0 else np.ceil(bin_size))
    return start, bin_size, int(grid if grid <= MOST_SAMPLES else 0.0)


@jit
def _sample(start, bin_size, grid, p, i):
    """Return the position of sample ``i`` of bin ``p``."""
    T = type(start)
    return start + T(p) * bin_size + (T(i) + T(0.5)) * bin_size / T(grid)


@jit
def _count(start, bin_size, grid, p, limit, included):
    """Return how many samples of bin ``p`` come before ``limit``, or up to it; they run backwards if reversed."""
    low, high = 0, grid
    while low < high:
        middle = (low + high) // 2
        place = _sample(start, bin_size, grid, p, middle)
        before = place > limit if bin_size < 0 else place < limit
        if before or (included and place == limit):
            low = middle + 1
        else:
            high = middle
    return low


@jit
def _on_map(start, bin_size, grid, p, size):
    """Return the first sample of bin ``p`` on a map of ``size`` cells, or on its margin, and the one after the last."""
    T = type(start)
    near, far = (T(size), T(-1)) if bin_size < 0 else (T(-1), T(size))
    return _count(start, bin_size, grid, p, near, False), _count(start, bin_size, grid, p, far, True)


@jit
def _after(start, bin_size, grid, p, i, end):
    """Return the next sample after ``i`` that lies elsewhere, or ``end``."""
    place = _sample(start, bin_size, grid, p, i)
    if i + 1 == end or _sample(start, bin_size, grid, p, i + 1) != place:
        return i + 1
    return min(end, _count(start, bin_size, grid, p, place, True))


@jit
def _neighbours(place, size):
    """Return the two cells around a place on a map of ``size`` cells, and the weights of both."""
    T = type(place)
    place = min(max(place, T(0)), T(size - 1))
    low = int(place)
    high = min(low + 1, size - 1)
    weight = place - T(low)
    return low, high, T(1) - weight, weight


@jit
def _share(samples, grid):
    """Return which part of an axis's samples these are."""
    return np.float64(samples) / np.float64(grid)


@jit
def _roi_align_kernel(y, x, rois, spatial_scale, sampling_ratio, aligned):
    """Interpolate at each sample on the map and average."""
    K, C, oH, oW = y.shape
    H, W = x.shape[2:]
    for k in range(K):
        n = int(rois[k, 0])
        left, bin_w, grid_x = _place(rois[k, 1], rois[k, 3], oW, spatial_scale, sampling_ratio, aligned)
        top, bin_h, grid_y = _place(rois[k, 2], rois[k, 4], oH, spatial_scale, sampling_ratio, aligned)
        for c in range(C):
            for py in range(oH):
                for px in range(oW):
                    iy, y_end = _on_map(top, bin_h, grid_y, py, H)
                    first, x_end = _on_map(left, bin_w, grid_x, px, W)
                    mean = np.float64(0)
                    while iy < y_end:
                        y0, y1, wy0, wy1 = _neighbours(_sample(top, bin_h, grid_y, py, iy), H)
                        next_y = _after(top, bin_h, grid_y, py, iy, y_end)
                        ix = first
                        while ix < x_end:
                            x0, x1, wx0, wx1 = _neighbours(_sample(left, bin_w, grid_x, px, ix), W)
                            next_x = _after(left, bin_w, grid_x, px, ix, x_end)
                            value = wy0 * (wx0 * x[n, c, y0, x0] + wx1 * x[n, c, y0, x1])
                            value += wy1 * (wx0 * x[n, c, y1, x0] + wx1 * x[n, c, y1, x1])
                            mean += _share(next_y - iy, grid_y) * _share(next_x - ix, grid_x) * value
                            ix = next_x
                        iy = next_y
                    y[k, c, py, px] = mean


@jit
def _roi_align_gradient_kernel(dx, dy, rois, spatial_scale, sampling_ratio, aligned):
    """Give each of a sample's four cells its weight's part of the gradient."""
    K, C, oH, oW = dy.shape
    H, W = dx.shape[2:]
    for k in range(K):
        n = int(rois[k, 0])
        left, bin_w, grid_x = _place(rois[k, 1], rois[k, 3], oW, spatial_scale, sampling_ratio, aligned)
        top, bin_h, grid_y = _place(rois[k, 2], rois[k, 4], oH, spatial_scale, sampling_ratio, aligned)
        for c in range(C):
            for py in range(oH):
                for px in range(oW):
                    iy, y_end = _on_map(top, bin_h, grid_y, py, H)
                    first, x_end = _on_map(left, bin_w, grid_x, px, W)
                    while iy < y_end:
                        y0, y1, wy0, wy1 = _neighbours(_sample(top, bin_h, grid_y, py, iy), H)
                        next_y = _after(top, bin_h, grid_y, py, iy, y_end)
                        ix = first
                        while ix < x_end:
                            x0, x1, wx0, wx1 = _neighbours(_sample(left, bin_w, grid_x, px, ix), W)
                            next_x = _after(left, bin_w, grid_x, px, ix, x_end)
                            share = _share(next_y - iy, grid_y) * _share(next_x - ix, grid_x) * dy[k, c, py, px]
                            dx[n, c, y0, x0] += share * wy0 * wx0
                            dx[n, c, y0, x1] += share * wy0 * wx1
                            dx[n, c, y1, x0] += share * wy1 * wx0
                            dx[n, c, y1, x1] += share * wy1 * wx1
                            ix = next_x
                        iy = next_y
