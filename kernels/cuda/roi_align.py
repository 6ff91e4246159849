"""RoIAlign. The cells that a bin averages, and their weights, are tabulated once for all channels: see ``roi_taps``.

Forward: a thread computes a bin for four channels, with the taps of the bin read once for all four; how threads lie
along bins, and why, says ``roi_tiles``.

Backward, one of two, as `kernels.cuda.use_deterministic` says:

- gather: a thread owns a cell in eight channels, and adds up what the bins of each RoI that touches it give, RoI after
  RoI and bin after bin. The sums are the same in every run.
- scatter: a thread takes a bin as forward does, and adds to its cells by atomic operations, in the order in which
  threads happen to come: sums may differ in their last digits from run to run.

The reads and writes of the feature maps are what takes the time; weights and cells come from the cache.
"""

from numba.types import int32, int64, uint32, uint64

from kernels import checks
from kernels.cuda.array import empty, on_device, zeros
from kernels.cuda.device import cuda, device_function, is_deterministic, typed_kernel
from kernels.cuda.roi_taps import largest_bins, tabulate
from kernels.cuda.roi_tiles import (
    DEPTH,
    QUAD,
    THREADS,
    WORD,
    bin_and_channels,
    grid_of_outputs,
    grid_of_tiles,
    place_of_tile,
    touching,
)


def roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Average interpolated samples over each bin of each box.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, C, H, W)
        Feature maps, float32 or float64.
    rois : ndarray or DeviceArray, shape (K, 5)
        Batch index, x1, y1, x2, y2 of each box, in picture coordinates; of x's type. Those on the device are checked
        there, and three numbers are copied back, which the host waits for (see ``verdicts``). Those of the host are
        checked there; nobody waits.
    output_size : int or pair of int
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        Samples per bin and axis; 0 or less for as many as the bin has cells, rounded up.
    aligned : bool
        Whether half a cell is subtracted from the scaled corners.

    Returns
    -------
    DeviceArray, shape (K, C, oH, oW)
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
    Follows ``torchvision.ops.roi_align``. What is computed says ``kernels.naive.roi_align``.
    """
    x, rois, size, *how = checks.roi_align(x, rois, output_size, spatial_scale, sampling_ratio, aligned)

    def check(values):
        checks.roi_align(x, values, output_size, spatial_scale, sampling_ratio, aligned)

    largest = largest_bins(check, rois, x.shape[0], size, *how)
    x, rois = on_device(x, rois)
    n, c, h, w = x.shape
    y = empty((len(rois), c, *size), x.dtype)
    if y.size:
        taps = tabulate(rois, largest, (h, w), size, *how)
        grid = grid_of_outputs(len(rois), c, size[0] * size[1])
        length, _, _, cell, weight = taps.raw
        _forward_kernel.run(*grid, y.raw, x.raw, rois.raw, length, cell, weight, len(rois), c, h, w, *size, taps.most)
    return y


def roi_align_backward(dy, rois, input_shape, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Spread each output's gradient over the cells that it averages.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (K, C, oH, oW)
        Gradient of the output.
    rois : ndarray or DeviceArray, shape (K, 5)
        As given to `roi_align_forward`.
    input_shape : tuple of int
        Shape (N, C, H, W) of the feature maps.
    spatial_scale, sampling_ratio, aligned
        As given to `roi_align_forward`.

    Returns
    -------
    DeviceArray, shape (N, C, H, W)
        Gradient of the feature maps. The same in every run, unless `kernels.cuda.use_deterministic` was told otherwise.

    Raises
    ------
    TypeError, ValueError
        As in `roi_align_forward`.
    """
    arguments = spatial_scale, sampling_ratio, aligned
    dy, rois, input_shape, *how = checks.roi_align_gradient(dy, rois, input_shape, *arguments)

    def check(values):
        checks.roi_align_gradient(dy, values, input_shape, *arguments)

    size = dy.shape[2:]
    largest = largest_bins(check, rois, input_shape[0], size, *how)
    dy, rois = on_device(dy, rois)
    n, c, h, w = input_shape
    if not dy.size:
        return zeros(input_shape, dy.dtype)
    taps = tabulate(rois, largest, (h, w), size, *how)
    sizes = len(rois), c, h, w, *size, taps.most
    if not is_deterministic():
        dx = zeros(input_shape, dy.dtype)
        length, _, _, cell, weight = taps.raw
        grid = grid_of_outputs(len(rois), c, size[0] * size[1])
        _scatter_kernel.run(*grid, dx.raw, dy.raw, rois.raw, length, cell, weight, *sizes)
        return dx
    dx = empty(input_shape, dy.dtype)
    masks = touching(rois, taps.first, taps.after, size, input_shape)
    _gather_kernel.run(*grid_of_tiles(input_shape), dx.raw, dy.raw, masks.raw, *taps.raw, *sizes)
    return dx


@typed_kernel(
    lambda T: (
        T[::1], T[::1], T[::1], int32[::1], int32[::1], T[::1],
        int64, int64, int64, int64, int64, int64, int64,
    ),
    threads=THREADS,
)  # fmt: skip
def _forward_kernel(T):
    def forward_kernel(y, x, rois, length, cell, weight, K, C, H, W, oH, oW, most):
        B, bins, plane = oH + oW, oH * oW, H * W
        items = (C + QUAD - 1) // QUAD * bins
        step = cuda.gridDim.y * cuda.blockDim.x
        for k in range(cuda.blockIdx.x, K, cuda.gridDim.x):
            picture = int64(rois[5 * k]) * C
            for item in range(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x, items, step):
                c, b, py, px = bin_and_channels(item, bins, oW)
                # channels beyond the last one read the first of the four again, and are not written
                far1 = plane if c + 1 < C else 0
                far2 = 2 * plane if c + 2 < C else 0
                far3 = 3 * plane if c + 3 < C else 0
                start = (picture + c) * plane
                total0, total1, total2, total3 = T(0), T(0), T(0), T(0)
                across = length[k * B + oH + px]
                for i in range(length[k * B + py]):
                    at_y = (k * most + i) * B + py
                    row, weight_y = start + cell[at_y] * W, weight[at_y]
                    at_x = k * most * B + oH + px
                    for _ in range(across):
                        both = weight_y * weight[uint64(at_x)]
                        at = row + cell[uint64(at_x)]
                        total0 += both * x[uint64(at)]
                        total1 += both * x[uint64(at + far1)]
                        total2 += both * x[uint64(at + far2)]
                        total3 += both * x[uint64(at + far3)]
                        at_x += B
                to = (k * C + c) * bins + b
                y[to] = total0
                if c + 1 < C:
                    y[to + bins] = total1
                if c + 2 < C:
                    y[to + 2 * bins] = total2
                if c + 3 < C:
                    y[to + 3 * bins] = total3

    return forward_kernel


@typed_kernel(
    lambda T: (
        T[::1], T[::1], T[::1], int32[::1], int32[::1], T[::1],
        int64, int64, int64, int64, int64, int64, int64,
    ),
    threads=THREADS,
)  # fmt: skip
def _scatter_kernel(T):
    def scatter_kernel(dx, dy, rois, length, cell, weight, K, C, H, W, oH, oW, most):
        B, bins, plane = oH + oW, oH * oW, H * W
        items = (C + QUAD - 1) // QUAD * bins
        step = cuda.gridDim.y * cuda.blockDim.x
        for k in range(cuda.blockIdx.x, K, cuda.gridDim.x):
            picture = int64(rois[5 * k]) * C
            for item in range(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x, items, step):
                c, b, py, px = bin_and_channels(item, bins, oW)
                start = (picture + c) * plane
                of = (k * C + c) * bins + b
                dy0 = dy[of]
                dy1 = dy[of + bins] if c + 1 < C else T(0)
                dy2 = dy[of + 2 * bins] if c + 2 < C else T(0)
                dy3 = dy[of + 3 * bins] if c + 3 < C else T(0)
                for i in range(length[k * B + py]):
                    at_y = (k * most + i) * B + py
                    row, weight_y = start + cell[at_y] * W, weight[at_y]
                    for j in range(length[k * B + oH + px]):
                        at_x = (k * most + j) * B + oH + px
                        both, at = weight_y * weight[at_x], row + cell[at_x]
                        cuda.atomic.add(dx, at, both * dy0)
                        if c + 1 < C:
                            cuda.atomic.add(dx, at + plane, both * dy1)
                        if c + 2 < C:
                            cuda.atomic.add(dx, at + 2 * plane, both * dy2)
                        if c + 3 < C:
                            cuda.atomic.add(dx, at + 3 * plane, both * dy3)

    return scatter_kernel


@typed_kernel(
    lambda T: (
        T[::1], T[::1], uint32[::1], int32[::1], int32[::1], int32[::1], int32[::1], T[::1],
        int64, int64, int64, int64, int64, int64, int64,
    )
)  # fmt: skip
def _gather_kernel(T):
    @device_function
    def weight_of(place, at, step, taps, cell, weight):
        """Return the weight of a cell among the taps of a bin, and whether it is one of them."""
        total, touched = T(0), False
        for _ in range(taps):
            if cell[at] == place:
                total, touched = total + weight[at], True
            at += step
        return total, touched

    def gather_kernel(dx, dy, masks, length, first, after, cell, weight, K, C, H, W, oH, oW, most):
        B, bins, words = oH + oW, oH * oW, (K + WORD - 1) // WORD
        n, y, x = place_of_tile(cuda.blockIdx.x, H, W)
        y, x = y + cuda.threadIdx.y, x + cuda.threadIdx.x
        total = cuda.local.array(DEPTH, T)  # in registers: all its indices are known to the compiler
        for c in range(cuda.blockIdx.y * DEPTH, C, cuda.gridDim.y * DEPTH):
            for i in range(DEPTH):
                total[i] = 0
            for word in range(words):
                bits = masks[cuda.blockIdx.x * words + word]
                while bits:
                    k = word * WORD + cuda.ffs(bits) - 1
                    bits = uint32(bits & (bits - uint32(1)))
                    for py in range(oH):
                        if y < first[k * B + py] or y >= after[k * B + py]:
                            continue
                        weight_y, touched_y = weight_of(y, k * most * B + py, B, length[k * B + py], cell, weight)
                        for px in range(oH, B if touched_y else oH):
                            if x < first[k * B + px] or x >= after[k * B + px]:
                                continue
                            weight_x, touched = weight_of(x, k * most * B + px, B, length[k * B + px], cell, weight)
                            if touched:
                                both = weight_y * weight_x
                                of = (k * C + c) * bins + py * oW + px - oH
                                for i in range(DEPTH):
                                    # channels beyond the last one read the first again, and are not written
                                    total[i] += both * dy[uint64(of + (i * bins if c + i < C else 0))]
            if y < H and x < W:
                for i in range(DEPTH):
                    if c + i < C:
                        dx[((n * C + c + i) * H + y) * W + x] = total[i]

    return gather_kernel
