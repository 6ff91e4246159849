"""Rung 5 of roi_align: a bin's sums stay in registers."""

from typing import Any

import numpy as np
from numba import extending, prange

from kernels.cpu.native import native
from kernels.cpu.tiling import lanes
from kernels.cpu.vector_writer import signature_of, write_with
from kernels.jit import jit
from kernels.ladder.roi_align.rung2_taps import taps_along
from kernels.ladder.roi_align.rung3_channels_last import turn_bins
from kernels.ladder.roi_align.rung4_threads import turn_map
from kernels.ladder.roi_align.sampling import prepare

intrinsic: Any = extending.intrinsic  # to a type checker, callers would have to pass the typing context

#: Vectors of channels that are summed together: enough that no multiply-add waits for the one before.
VECTORS = 4
#: Numbers between two rows of sums. Without them, 256 channels are 1024 bytes: a column's numbers would all fall on the
#: same few places of the first-level cache, and push each other out while the bins are turned.
SPARE = 16


def roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Average blocks of channels whose sums are stored once.

    Changes: a bin writes the list of its taps, each a place on the map and a weight. Then four vectors of channels at a
    time go through the list, with their sums in registers (`add_taps`, written as vector instructions; the compiler
    does not do that by itself). The rows of sums are a little longer than they need be.

    Why: rung 4 loads and stores every sum once per tap, three memory operations for one multiply-add. Here it is one,
    the cell itself. The longer rows spare the cache when the bins are turned (see ``SPARE``).

    Measured: 10 GFLOP/s per core; of the gain, half is due to either change. Now the map has to come from the second-
    and third-level caches, and turning map and output takes a good part of the time. Without the JIT it cannot run:
    Python has no vector instructions. Parameters: see `kernels.ladder.roi_align`.
    """
    y, x, rois, scale, ratio, aligned = prepare(x, rois, output_size, spatial_scale, sampling_ratio, aligned)
    width = VECTORS * lanes(x.dtype)
    turned = turn_map(x, -(-x.shape[1] // width) * width)  # whole blocks of channels
    if y.size:
        pool = native(_pool_box, x.dtype, (y[0], turned, rois[0], scale, ratio, aligned, width))
        registers_kernel(pool, y, turned, rois, scale, ratio, aligned, width)
    return y


@jit(parallel=True)
def registers_kernel(pool, y, x, rois, spatial_scale, sampling_ratio, aligned, width):
    """Give each box to one thread."""
    for k in prange(y.shape[0]):
        pool(y[k], x, rois[k], spatial_scale, sampling_ratio, aligned, width)


@jit
def _pool_box(y, x, roi, spatial_scale, sampling_ratio, aligned, width):
    """Compute the bins of one box, (C, oH, oW), from maps (N, H, W, channels)."""
    how = spatial_scale, sampling_ratio, aligned
    y_taps = taps_along(roi[2], roi[4], y.shape[1], x.shape[1], *how)
    x_taps = taps_along(roi[1], roi[3], y.shape[2], x.shape[2], *how)
    sum_taps(y, x, int(roi[0]), y_taps, x_taps, width)


@jit
def sum_taps(y, x, n, y_taps, x_taps, width):
    """Compute the bins of one box from the taps along both axes."""
    y_count, y_cells, y_weights = y_taps
    x_count, x_cells, x_weights = x_taps
    oH, oW = y.shape[1:]
    H, W, channels = x.shape[1:]
    places = np.empty(y_cells.shape[1] * x_cells.shape[1], np.int64)
    weights = np.empty(places.size, y.dtype)
    bins = np.empty((oH, oW, channels + SPARE), y.dtype)
    for py in range(oH):
        for px in range(oW):
            taps = 0
            for i in range(y_count[py]):
                line = (n * H + y_cells[py, i]) * W
                for j in range(x_count[px]):
                    places[taps] = (line + x_cells[px, j]) * channels
                    weights[taps] = y_weights[py, i] * x_weights[px, j]
                    taps += 1
            for first in range(0, channels, width):
                add_taps(bins, (py * oW + px) * bins.shape[2] + first, x, first, places, weights, taps)
    turn_bins(y, bins)


@intrinsic
def add_taps(typing_context, out, out_start, x, x_start, places, weights, count):
    """Write ``VECTORS`` vectors of sums, from ``out[out_start]`` on.

    Each is the sum over t < count of ``weights[t]`` times the vector at ``x[x_start + places[t]]``. Indices count from
    the first element; nothing checks them.
    """
    signature = signature_of(out, out_start, x, x_start, places, weights, count)
    return signature, write_with(_write_add_taps)


def _write_add_taps(w, out, out_start, x, x_start, places, weights, count):
    out, x = w.at(out, out_start), w.at(x, x_start)

    def add_tap(t, sums):
        weight, cell = w.splat(w.get(weights, t)), w.at(x, w.get(places, t))
        return [w.multiply_add(weight, w.load(cell, v * w.lanes), total) for v, total in enumerate(sums)]

    for v, total in enumerate(w.loop(count, [w.zero] * VECTORS, add_tap)):
        w.store(total, w.at(out, v * w.lanes))
