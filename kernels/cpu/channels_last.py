"""Feature maps turned so that the channels of a cell lie side by side: what the RoI operators read and write.

A bin then adds up, or compares, whole rows of channels, with one set of weights for all. Cells are turned in groups of
neighbours, and only groups that a RoI touches: a few small RoIs on a large map cost no more than their own cells.
"""

import numpy as np
from numba import prange

from kernels.cpu import memory
from kernels.cpu.blocks import flat
from kernels.cpu.native import native
from kernels.cpu.tiling import VECTOR_BYTES
from kernels.cpu.vector import transpose_square
from kernels.jit import jit

#: Cells of a group: as many float32 numbers as a cache line, or a vector, holds.
GROUP = 16
#: Groups that one task turns.
_GROUPS = 8
#: Bytes of a turned map that are held at once: more is hardly faster, and a large map should not be there twice.
_SCRATCH = 24 << 20


def touched_groups(picture, rows, columns, shape):
    """Return which groups of cells RoIs touch.

    Parameters
    ----------
    picture : ndarray of int64, (K,)
        The picture of each RoI.
    rows, columns : ndarray of int64, (K, 2)
        First row or column that each RoI touches, and the one after its last.
    shape : tuple of int
        (N, C, H, W) of the map.

    Returns
    -------
    ndarray of int64
        Numbers of the groups, in rising order; those of a picture follow those of the one before.
    """
    n, _, h, w = shape
    marks = np.zeros(n * groups_of(h * w), np.bool_)
    _mark(marks, picture, rows, columns, h * w, w)
    return np.flatnonzero(marks)


@jit
def groups_of(cells):
    """Return how many groups there are in a picture."""
    return (cells + GROUP - 1) // GROUP


@jit
def _mark(marks, picture, rows, columns, cells, width):
    for k in range(picture.size):
        first = picture[k] * groups_of(cells)
        if columns[k, 0] < columns[k, 1]:
            for row in range(rows[k, 0], rows[k, 1]):
                start, end = row * width + columns[k, 0], row * width + columns[k, 1]
                marks[first + start // GROUP : first + (end - 1) // GROUP + 1] = True


def channel_parts(shape, itemsize):
    """Return slices of the channels of a map of that shape: as many as are turned at once."""
    n, c, h, w = shape
    fitting = max(GROUP, _SCRATCH // (n * h * w * itemsize))
    parts = -(-c // fitting)
    size = -(-c // parts // GROUP) * GROUP
    return [slice(start, min(start + size, c)) for start in range(0, c, size)]


def channels_last(x, groups=None, part=None, step=None):
    """Return x, (N, C, H, W), as a flat array of N * H * W rows of channels.

    With ``groups`` only those are filled in; with ``part``, a slice, only these channels are there, and a row of them
    is ``step`` numbers long.
    """
    n, c, h, w = x.shape
    groups = np.arange(n * groups_of(h * w)) if groups is None else groups
    part = slice(0, c) if part is None else part
    channels = part.stop - part.start
    step = channels if step is None else step
    turned = memory.empty((n * h * w * step,), x.dtype)
    if turned.size:
        arguments = turned, step, flat(x), flat(groups), (c, h * w), part.start, channels
        _turn_kernel(native(_turn_groups, x.dtype, (0, *arguments)), *arguments)
    return turned


@jit(parallel=True)
def _turn_kernel(turn_groups, turned, step, x, groups, size, start, channels):
    for task in prange((groups.size + _GROUPS - 1) // _GROUPS):
        turn_groups(np.int64(task) * _GROUPS, turned, step, x, groups, size, start, channels)


@jit
def _turn_groups(first, turned, step, x, groups, size, start, channels):
    """Turn some groups: a few channels of all, then the next, so that memory is read along the rows of the map."""
    all_channels, cells = size
    for c in range(0, channels, GROUP):
        for i in range(first, min(first + _GROUPS, groups.size)):
            picture, cell, count = cells_of(groups[i], cells)
            transpose(
                turned, (picture * cells + cell) * step + c, step,
                x, (picture * all_channels + start + c) * cells + cell, cells, min(GROUP, channels - c), count,
            )  # fmt: skip


@jit
def cells_of(group, cells):
    """Return the picture of a group, its first cell there and how many it has."""
    picture, cell = group // groups_of(cells), group % groups_of(cells) * GROUP
    return picture, cell, min(GROUP, cells - cell)


@jit
def transpose(to, to_start, to_step, source, source_start, source_step, rows, columns):
    """Copy ``rows`` rows of ``columns`` elements, transposed: both arrays are flat, their rows ``_step`` apart.

    Squares of whole vectors first, then what is left over, one by one.
    """
    size = VECTOR_BYTES // to.itemsize
    whole_rows, whole_columns = rows - rows % size, columns - columns % size
    for j in range(0, whole_columns, size):
        for i in range(0, whole_rows, size):
            transpose_square(
                to, to_start + j * to_step + i, to_step, source, source_start + i * source_step + j, source_step
            )
    for j in range(columns):
        for i in range(whole_rows if j < whole_columns else 0, rows):
            to[to_start + j * to_step + i] = source[source_start + i * source_step + j]
