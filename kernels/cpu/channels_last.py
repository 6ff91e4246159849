"""Feature maps turned so that the channels of a cell lie side by side: what the RoI operators read.

A bin then adds up, or compares, whole rows of channels, with one set of weights for all. One task turns a block of
cells of one picture.
"""

import numpy as np
from numba import prange

from kernels.cpu.blocks import flat
from kernels.jit import jit

CELLS = 128
_LINE = 16  # channels turned together: what a cache line holds


def channels_last(x):
    """Return x, (N, C, H, W), as a new array (N * H * W, C)."""
    n, c, h, w = x.shape
    turned = np.empty((n * h * w, c), x.dtype)
    if x.size:
        _turn_kernel(turned, flat(x), h * w)
    return turned


@jit(parallel=True)
def _turn_kernel(turned, x, cells):
    for task in prange(turned.shape[0] // cells * ((cells + CELLS - 1) // CELLS)):
        _turn_block(np.int64(task), turned, x, cells)


@jit
def _turn_block(task, turned, x, cells):
    blocks = (cells + CELLS - 1) // CELLS
    picture, start = task // blocks, task % blocks * CELLS
    end = min(start + CELLS, cells)
    channels = turned.shape[1]
    for first in range(0, channels, _LINE):
        for cell in range(start, end):
            row = turned[picture * cells + cell]
            for c in range(first, min(first + _LINE, channels)):
                row[c] = x[(picture * channels + c) * cells + cell]


@jit
def turn_bins(y, bins):
    """Write ``bins``, (bins, channels or more), to ``y``, (channels, bins)."""
    for c in range(y.shape[0]):
        row = y[c]
        for b in range(row.size):
            row[b] = bins[b, c]
