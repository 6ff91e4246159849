"""Rung 1 of roi_align: the formula."""

import numpy as np

from kernels.jit import jit
from kernels.ladder.roi_align.sampling import neighbours, on_map, place_box, prepare, sample


def roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Average interpolated samples, each output by itself.

    Why it is slow: where a sample lies, and with which weights it takes its four neighbours, is worked out for every
    channel again, although it is the same for all. The neighbours of the next output lie somewhere else.

    Measured: 0.3 GFLOP/s. Parameters: see `kernels.ladder.roi_align`.
    """
    y, *arguments = prepare(x, rois, output_size, spatial_scale, sampling_ratio, aligned)
    _textbook_kernel(y, *arguments)
    return y


@jit
def _textbook_kernel(y, x, rois, spatial_scale, sampling_ratio, aligned):
    K, C, oH, oW = y.shape
    H, W = x.shape[2:]
    for k in range(K):
        n = int(rois[k, 0])
        left, bin_w, grid_x = place_box(rois[k, 1], rois[k, 3], oW, spatial_scale, sampling_ratio, aligned)
        top, bin_h, grid_y = place_box(rois[k, 2], rois[k, 4], oH, spatial_scale, sampling_ratio, aligned)
        for c in range(C):
            for py in range(oH):
                for px in range(oW):
                    total = np.float64(0)
                    for i in range(grid_y):
                        sample_y = sample(top, bin_h, grid_y, py, i)
                        if not on_map(sample_y, H):
                            continue
                        y0, y1, wy0, wy1 = neighbours(sample_y, H)
                        for j in range(grid_x):
                            sample_x = sample(left, bin_w, grid_x, px, j)
                            if not on_map(sample_x, W):
                                continue
                            x0, x1, wx0, wx1 = neighbours(sample_x, W)
                            total += wy0 * (wx0 * x[n, c, y0, x0] + wx1 * x[n, c, y0, x1])
                            total += wy1 * (wx0 * x[n, c, y1, x0] + wx1 * x[n, c, y1, x1])
                    y[k, c, py, px] = total / max(grid_y * grid_x, 1)
