"""RoIPool. The cells of every bin are tabulated once for all channels: a range of rows, and a range of columns.

Forward: a thread computes a bin for four channels, going through its cells once for all four; how threads lie along
bins, and why, says ``roi_tiles``.

Backward, one of two, as `kernels.cuda.use_deterministic` says:

- gather: a thread owns a cell in eight channels, and adds the gradient of every bin whose maximum it was, RoI after RoI
  and bin after bin. The sums are the same in every run. Where the bins lay, the gradient is not told: a first kernel
  looks through the places of the maxima for the rows and columns that a bin's channels found theirs in, which also
  shows whether all places lie on the map.
- scatter: a thread takes an output and adds its gradient to its cell by an atomic operation, in the order in which
  threads happen to come: sums may differ in their last digits from run to run.
"""

import math

import numpy as np
from numba.types import float64, int32, int64, uint32, uint64

from kernels import checks, scalar_math
from kernels.checks.arguments import is_on_device
from kernels.checks.rois import check_places
from kernels.cuda import verdicts
from kernels.cuda.array import empty, on_device, to_host, zeros
from kernels.cuda.device import (
    cuda,
    device_function,
    is_deterministic,
    kernel,
    rounded_product,
    tile,
    typed_kernel,
)
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

#: The value that a bin starts from, in float64 too: torchvision's choice.
_LOWEST = -float(np.finfo(np.float32).max)
#: Floats from here on are whole numbers.
_WHOLE = 1e16
_LOOKING_THREADS = tile(256, 4)

_round = device_function(scalar_math.round_half_away)


def roi_pool_forward(x, rois, output_size, spatial_scale=1.0):
    """Return the largest value of each bin of each box, and where it stands.

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

    Returns
    -------
    y : DeviceArray, shape (K, C, oH, oW)
        The maxima.
    argmax : DeviceArray of int32, shape (K, C, oH, oW)
        Place of each maximum, as ``row * W + column`` of its plane; -1 where there is none.

    Raises
    ------
    TypeError
        If x or rois has another type than float32 or float64, or they differ.
    ValueError
        If a shape or parameter does not fit, a coordinate is not finite, or a batch index is not that of a picture.

    Notes
    -----
    Follows ``torchvision.ops.roi_pool``. What is computed says ``kernels.naive.roi_pool``.
    """
    x, rois, (oh, ow), scale = checks.roi_pool(x, rois, output_size, spatial_scale)
    if is_on_device(rois):
        verdicts.rois(lambda values: checks.roi_pool(x, values, output_size, spatial_scale), rois, len(x), scale=scale)
    x, rois = on_device(x, rois)
    n, c, h, w = x.shape
    k = len(rois)
    y, argmax = empty((k, c, oh, ow), x.dtype), empty((k, c, oh, ow), np.int32)
    if y.size:
        first, after = (empty((k, oh + ow), np.int32) for _ in range(2))
        _edges_kernel.over(k * (oh + ow), first.raw, after.raw, rois.raw, k, oh, ow, h, w, scale)
        grid = grid_of_outputs(k, c, oh * ow)
        _forward_kernel.run(*grid, y.raw, argmax.raw, x.raw, rois.raw, first.raw, after.raw, k, c, h, w, oh, ow)
    return y, argmax


def roi_pool_backward(dy, rois, argmax, input_shape):
    """Send each output's gradient to the cell that was the maximum.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (K, C, oH, oW)
        Gradient of the output.
    rois : ndarray or DeviceArray, shape (K, 5)
        As given to `roi_pool_forward`.
    argmax : ndarray of int or DeviceArray of int32, shape (K, C, oH, oW)
        As returned by it.
    input_shape : tuple of int
        Shape (N, C, H, W) of the feature maps.

    Returns
    -------
    DeviceArray, shape (N, C, H, W)
        Gradient of the feature maps. The same in every run, unless `kernels.cuda.use_deterministic` was told otherwise.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit each other, or an index lies outside the map.
    """
    dy, rois, argmax, input_shape = checks.roi_pool_gradient(dy, rois, argmax, input_shape)
    unseen_rois, unseen_places = is_on_device(rois), is_on_device(argmax)
    dy, rois, argmax = on_device(dy, rois, argmax)
    n, c, h, w = input_shape
    k, _, oh, ow = dy.shape
    first, after = (empty((k, oh + ow), np.int32) for _ in range(2))

    def look(verdict):
        if dy.size:
            tables = verdict.raw, first.raw, after.raw, argmax.raw
            blocks = tile(k, min(k, 2))
            _places_kernel.run(blocks, _LOOKING_THREADS, *tables, k, c, h, w, oh, ow, dtype=dy.dtype)

    def check(values):
        checks.roi_pool_gradient(dy, values, argmax, input_shape)
        places = to_host(argmax)
        check_places(places.min(), places.max(), input_shape)

    if unseen_rois or unseen_places:
        verdicts.rois(check, rois, n, also=look)
    elif is_deterministic():
        look(empty((1,), np.int32))
    if is_deterministic() and dy.size:
        dx = empty(input_shape, dy.dtype)
        masks = touching(rois, first, after, (oh, ow), input_shape)
        tables = masks.raw, first.raw, after.raw
        _gather_kernel.run(*grid_of_tiles(input_shape), dx.raw, dy.raw, argmax.raw, *tables, k, c, h, w, oh, ow)
        return dx
    dx = zeros(input_shape, dy.dtype)
    _scatter_kernel.over(dy.size, dx.raw, dy.raw, argmax.raw, rois.raw, dy.size, c, h * w, oh * ow)
    return dx


@typed_kernel(lambda T: (int32[::1], int32[::1], T[::1], int64, int64, int64, int64, int64, T))
def _edges_kernel(T):
    times = rounded_product(T)

    def edges_kernel(first, after, rois, K, down, across, height, width, spatial_scale):
        # a thread tabulates a bin along one axis: first those of the vertical axis, then those of the horizontal one
        B = down + across
        for task in range(cuda.grid(1), K * B, cuda.gridsize(1)):
            k, b = task // B, task % B
            column, p, bins, size = (2, b, down, height) if b < down else (1, b - down, across, width)
            start = float64(_round(times(rois[5 * k + column], spatial_scale)))
            end = float64(_round(times(rois[5 * k + column + 2], spatial_scale)))
            bin_size = T(max(end - start + 1.0, 1.0)) / T(bins)
            low, high = float64(times(T(p), bin_size)), float64(times(T(p + 1), bin_size))
            if low < _WHOLE:
                low = float64(math.floor(low))
            if high < _WHOLE:
                high = float64(math.ceil(high))
            # clamped as floats, since huge ones have no whole number
            first[task] = int32(min(max(start + low, 0.0), float64(size)))
            after[task] = int32(min(max(start + high, 0.0), float64(size)))

    return edges_kernel


@typed_kernel(
    lambda T: (
        T[::1], int32[::1], T[::1], T[::1], int32[::1], int32[::1],
        int64, int64, int64, int64, int64, int64,
    ),
    threads=THREADS,
)  # fmt: skip
def _forward_kernel(T):
    lowest = T(_LOWEST)

    def forward_kernel(y, argmax, x, rois, first, after, K, C, H, W, oH, oW):
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
                y0, y1 = first[k * B + py], after[k * B + py]
                x0, x1 = first[k * B + oH + px], after[k * B + oH + px]
                largest0 = T(0) if y1 <= y0 or x1 <= x0 else lowest
                largest1, largest2, largest3 = largest0, largest0, largest0
                place0, place1, place2, place3 = int32(-1), int32(-1), int32(-1), int32(-1)
                for iy in range(y0, y1):
                    for ix in range(x0, x1):
                        place = int32(iy * W + ix)
                        at = start + place
                        value0, value1 = x[uint64(at)], x[uint64(at + far1)]
                        value2, value3 = x[uint64(at + far2)], x[uint64(at + far3)]
                        # strictly: the first of equal values stays, and NaN never wins
                        if value0 > largest0:
                            largest0, place0 = value0, place
                        if value1 > largest1:
                            largest1, place1 = value1, place
                        if value2 > largest2:
                            largest2, place2 = value2, place
                        if value3 > largest3:
                            largest3, place3 = value3, place
                to = (k * C + c) * bins + b
                y[to], argmax[to] = largest0, place0
                if c + 1 < C:
                    y[to + bins], argmax[to + bins] = largest1, place1
                if c + 2 < C:
                    y[to + 2 * bins], argmax[to + 2 * bins] = largest2, place2
                if c + 3 < C:
                    y[to + 3 * bins], argmax[to + 3 * bins] = largest3, place3

    return forward_kernel


@kernel(
    lambda T: (
        int32[::1], int32[::1], int32[::1], int32[::1],
        int64, int64, int64, int64, int64, int64,
    ),
    threads=_LOOKING_THREADS,
)  # fmt: skip
def _places_kernel(verdict, first, after, argmax, K, C, H, W, oH, oW):
    # a block takes a RoI, a thread one of its bins, or several: all channels of the bin, or every other one
    B, bins = oH + oW, oH * oW
    parts = max(cuda.blockDim.x // bins, 1)
    for k in range(cuda.blockIdx.x, K, cuda.gridDim.x):
        for b in range(cuda.threadIdx.x, B, cuda.blockDim.x):
            first[k * B + b], after[k * B + b] = H if b < oH else W, 0
        cuda.syncthreads()  # before these are lowered and raised
        for task in range(cuda.threadIdx.x, parts * bins, cuda.blockDim.x):
            part, b = task // bins, task % bins
            py, px = b // oW, b % oW
            low_y, low_x, high_y, high_x = int32(H), int32(W), int32(0), int32(0)
            for c in range(part, C, parts):
                place = argmax[uint64((k * C + c) * bins + b)]
                if place < -1 or place >= H * W:
                    cuda.atomic.max(verdict, 0, int32(1))
                elif place >= 0:
                    iy = int32(uint32(place) // uint32(W))
                    ix = int32(place - iy * W)
                    low_y, high_y = min(low_y, iy), max(high_y, iy + 1)
                    low_x, high_x = min(low_x, ix), max(high_x, ix + 1)
            if high_y > 0:
                cuda.atomic.min(first, k * B + py, low_y)
                cuda.atomic.max(after, k * B + py, int32(high_y))
                cuda.atomic.min(first, k * B + oH + px, low_x)
                cuda.atomic.max(after, k * B + oH + px, int32(high_x))


@kernel(lambda T: (T[::1], T[::1], int32[::1], T[::1], int64, int64, int64, int64))
def _scatter_kernel(dx, dy, argmax, rois, count, channels, plane, bins):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        place = argmax[i]
        if place >= 0:
            of = i // bins
            k = of // channels
            cuda.atomic.add(dx, (int64(rois[5 * k]) * channels + of - k * channels) * plane + place, dy[i])


@typed_kernel(
    lambda T: (
        T[::1], T[::1], int32[::1], uint32[::1], int32[::1], int32[::1],
        int64, int64, int64, int64, int64, int64,
    )
)  # fmt: skip
def _gather_kernel(T):
    def gather_kernel(dx, dy, argmax, masks, first, after, K, C, H, W, oH, oW):
        B, bins, words = oH + oW, oH * oW, (K + WORD - 1) // WORD
        n, y, x = place_of_tile(cuda.blockIdx.x, H, W)
        y, x = y + cuda.threadIdx.y, x + cuda.threadIdx.x
        # of a cell beyond the map there is no maximum: every place is less
        place = y * W + x if y < H and x < W else H * W
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
                        for px in range(oH, B):
                            if x < first[k * B + px] or x >= after[k * B + px]:
                                continue
                            of = (k * C + c) * bins + py * oW + px - oH
                            for i in range(DEPTH):
                                # channels beyond the last one look at the first again, and are not written
                                here = uint64(of + (i * bins if c + i < C else 0))
                                if argmax[here] == place:
                                    total[i] += dy[here]
            if y < H and x < W:
                for i in range(DEPTH):
                    if c + i < C:
                        dx[((n * C + c + i) * H + y) * W + x] = total[i]

    return gather_kernel
