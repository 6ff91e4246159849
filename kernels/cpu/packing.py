"""How a convolution reads its input: rows packed so that every tap of the kernel is a plain vector load.

A task copies the input rows that it needs into scratch of its own, with zeros where the padding is, and with rows
and columns sorted by their remainder modulo the stride (their phase). What a tap meets at neighbouring output pixels
then lies side by side, whatever the stride, padding or dilation, and a vector may read past the end of an output row
without leaving the scratch.
"""

import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels.cpu import memory
from kernels.cpu.native import address_of, call
from kernels.cpu.vector import clear, copy, copy_every_other, copy_spaced
from kernels.jit import jit

# ---- which input positions an output position reads ------------------------------------------------------------------


class Piece(NamedTuple):
    """Outputs ``start, start + step, ...``: number i meets input ``stride * i + offset`` with each kernel index."""

    start: int
    kernel: tuple
    offsets: tuple


class Axis(NamedTuple):
    """One axis of a correlation: every output belongs to one piece."""

    stride: int
    step: int
    pieces: tuple


def gather_axis(kernel_size, stride, padding, dilation):
    """Return the axis of a convolution: output i meets input ``stride * i - padding + dilation * k``."""
    offsets = tuple(dilation * k - padding for k in range(kernel_size))
    return Axis(stride, 1, (Piece(0, tuple(range(kernel_size)), offsets),))


def scatter_axis(size, kernel_size, stride, padding, dilation):
    """Return the axis of a convolution's adjoint with ``size`` outputs: its input gradient, or its transpose.

    Position p of the picture met output i of the convolution with kernel index k where ``p = stride * i - padding +
    dilation * k``. So the positions of one remainder modulo the stride share their kernel indices, and each such
    piece is an ordinary correlation of stride 1 over the outputs.
    """
    pieces = []
    for start in range(min(stride, size)):
        kernel = tuple(k for k in range(kernel_size) if (start + padding - dilation * k) % stride == 0)
        pieces.append(Piece(start, kernel, tuple((start + padding - dilation * k) // stride for k in kernel)))
    return Axis(1, stride, tuple(pieces))


class Phases(NamedTuple):
    """Where packing puts the positions of an axis: by phase, and by place within the phase."""

    first: int  # input position of phase 0, place 0, for output 0
    phases: tuple  # the remainders that some tap meets
    reach: int  # how many places the taps go beyond the first

    def place(self, offset, stride):
        """Return the index of the phase of ``offset``, and its place there."""
        place, phase = divmod(offset - self.first, stride)
        return self.phases.index(phase), place


def phases_of(axis):
    """Return how the positions that ``axis`` meets are packed."""
    offsets = [offset for piece in axis.pieces for offset in piece.offsets] or [0]
    first = min(offsets)
    phases = sorted({(offset - first) % axis.stride for offset in offsets})
    return Phases(first, tuple(phases), (max(offsets) - first) // axis.stride)


def plain(rows, cols):
    """Return whether a correlation has a kernel of 3x3, without stride or dilation."""
    return all(
        axis.stride == axis.step == 1 and len(axis.pieces[0].offsets) == 3 and abs(turn(axis)) == 1
        for axis in (rows, cols)
    )


def turn(axis):
    """Return the step between the inputs that two neighbouring taps meet."""
    offsets = axis.pieces[0].offsets
    return offsets[1] - offsets[0]


# ---- packing ---------------------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """Layout of the packed rows: [channel][row phase][row][column phase][pitch]."""

    channels: int
    height: int
    width: int
    row_first: int
    row_stride: int
    rows: int
    col_first: int
    col_stride: int
    pitch: int
    row_size: int
    channel_size: int


def layout_of(channels, height, width, rows, cols, block_rows, padded_width):
    """Return the layout for blocks of ``block_rows`` output rows of ``padded_width`` pixels, in whole vectors."""
    row, col = phases_of(rows), phases_of(cols)
    packed_rows, pitch = block_rows + row.reach, padded_width + col.reach
    row_size = len(col.phases) * pitch
    channel_size = len(row.phases) * packed_rows * row_size
    fields = (channels, height, width, row.first, rows.stride, packed_rows, col.first, cols.stride, pitch)
    return Layout(*fields, row_size, channel_size)


def tap_offsets(layout, rows, cols, row_piece, col_piece):
    """Return where each tap (channel, kernel row, kernel column) of a piece starts in the packed rows."""
    row, col = phases_of(rows), phases_of(cols)
    places = [row.place(offset, rows.stride) for offset in row_piece.offsets]
    down = [(phase * layout.rows + place) * layout.row_size for phase, place in places]
    places = [col.place(offset, cols.stride) for offset in col_piece.offsets]
    right = [phase * layout.pitch + place for phase, place in places]
    channel = np.arange(layout.channels, dtype=np.int64) * layout.channel_size
    offsets = channel[:, None, None] + np.array(down, np.int64)[:, None] + np.array(right, np.int64)
    return offsets.reshape(-1)


#: How many channels ahead of those that are packed pixels are fetched, where every other column is taken.
_AHEAD = 4


@jit
def pack_rows(packed, start, x, x_start, first_row, rows, row_phases, col_phases, layout):
    """Pack what ``rows`` output rows from ``first_row`` on need of all channels of the picture at ``x_start``."""
    pack_channels(packed, start, x, x_start, layout.channels, first_row, rows, row_phases, col_phases, layout)


@jit
def pack_channels(packed, start, x, x_start, channels, first_row, rows, row_phases, col_phases, layout):
    """Do what ``pack_rows`` does for ``channels`` channels, of which the first is at ``x_start``."""
    stride, ahead = layout.col_stride, _AHEAD * layout.height * layout.width
    for c in range(channels):
        for i in range(row_phases.size):
            for r in range(rows):
                y = layout.row_first + row_phases[i] + layout.row_stride * (first_row + r)
                to = start + c * layout.channel_size + (i * layout.rows + r) * layout.row_size
                if y < 0 or y >= layout.height:
                    clear(packed, to, layout.row_size)
                    continue
                source = x_start + (c * layout.height + y) * layout.width
                for k in range(col_phases.size):
                    x_first = layout.col_first + col_phases[k]
                    # places from `left` to `right` are in the picture, the others are padding
                    left = min(max(0, -(x_first // stride)), layout.pitch)
                    right = max(left, min(layout.pitch, -((x_first - layout.width) // stride)))
                    if left:
                        clear(packed, to, left)
                    if stride == 1:
                        copy(packed, to + left, x, source + x_first + left, right - left)
                    elif stride == 2:
                        copy_every_other(packed, to + left, x, source + x_first + 2 * left, right - left, ahead)
                    else:
                        x_from = source + x_first + stride * left
                        copy_spaced(packed, to + left, 1, x, x_from, stride, right - left)
                    if right < layout.pitch:
                        clear(packed, to + right, layout.pitch - right)
                    to += layout.pitch


@jit
def pack_gradient(packed, start, dy, dy_start, rows, width, padded_width):
    """Copy ``rows`` rows of ``width`` pixels, filling up each with zeros to ``padded_width``."""
    if width == padded_width:
        copy(packed, start, dy, dy_start, rows * width)
        return
    for r in range(rows):
        to = start + r * padded_width
        copy(packed, to, dy, dy_start + r * width, width)
        clear(packed, to + width, padded_width - width)


#: Input channels whose weights a task packs.
_IN_BLOCK = 16


class _WeightSizes(NamedTuple):
    """What a task must know to pack weights; steps are between neighbours in the flat array."""

    tasks: int
    in_blocks: int
    channels: int
    in_channels: int
    tiles: int
    tile_rows: int
    group_step: int
    channel_step: int
    in_step: int


class _WeightTables(NamedTuple):
    """Arrays of int64: per piece its first tap, its taps, its first packed weight; where each tap is in a kernel."""

    pieces: np.ndarray
    taps: np.ndarray


def pack_weights(weight, kernels, tile_rows):
    """Return weights with ``tile_rows`` output channels side by side per tap, for each piece of a correlation.

    Parameters
    ----------
    weight : (groups, out, in, kH, kW)
        Weights of a correlation.
    kernels : sequence of (sequence of int, sequence of int)
        Per piece the indices into kH and kW, in the order of the taps.
    tile_rows : int
        Output channels per tile; the last tile is filled up with zeros.

    Returns
    -------
    ndarray
        One piece after the other, (groups, tiles, taps, tile_rows) each, in one line. It is overwritten by the next
        call from the same Python thread.
    """
    transposed = weight.swapaxes(1, 2)  # an input gradient's weights are C-contiguous in this order
    line = transposed if transposed.flags.c_contiguous else np.ascontiguousarray(weight)
    steps = [step // weight.itemsize for step in (weight.strides if line is transposed else line.strides)]
    tiles = -(-weight.shape[1] // tile_rows)
    sizes, tables, total = _weight_plan(weight.shape, tuple(steps), tuple(kernels), tiles, tile_rows)
    packed = scratch(1, total, weight.dtype, "weights")[0]
    address = address_of(_pack_weights_task, weight.dtype, (packed, flat(line), *tables, sizes, 0))
    _pack_weights_kernel(address, packed, flat(line), *tables, tuple(sizes))
    return packed


@lru_cache(maxsize=1024)
def _weight_plan(shape, steps, kernels, tiles, tile_rows):
    """Return sizes and tables for ``pack_weights``, and how many numbers it packs."""
    groups, channels, in_channels = shape[:3]
    pieces: list = []
    taps: list = []
    total = 0
    for ky, kx in kernels:
        pieces.append((len(taps), len(ky) * len(kx), total))
        taps += [steps[3] * y + steps[4] * x for y in ky for x in kx]
        total += groups * tiles * in_channels * len(ky) * len(kx) * tile_rows
    in_blocks = -(-in_channels // _IN_BLOCK)
    sizes = _WeightSizes(groups * in_blocks, in_blocks, channels, in_channels, tiles, tile_rows, *steps[:3])
    return sizes, _WeightTables(np.array(pieces, np.int64), np.array(taps, np.int64)), total


@jit(parallel=True)
def _pack_weights_kernel(address, packed, weight, pieces, taps, sizes):
    """Pack all input channels of all groups."""
    named = _WeightSizes(*sizes)  # here: Numba takes long to recognise a named tuple that comes from Python
    for task in prange(named.tasks):
        call(address, packed, weight, pieces, taps, named, np.int64(task))


@jit
def _pack_weights_task(packed, weight, pieces, taps, sizes, task):
    """Pack a few input channels of every tile and piece: what is read together is near each other either way."""
    group, first = task // sizes.in_blocks, task % sizes.in_blocks * _IN_BLOCK
    last, rows = min(first + _IN_BLOCK, sizes.in_channels), sizes.tile_rows
    for tile in range(sizes.tiles):
        channels = min(rows, sizes.channels - tile * rows)
        source = group * sizes.group_step + tile * rows * sizes.channel_step
        for c in range(first, last):
            for p in range(pieces.shape[0]):
                first_tap, count, start = pieces[p]
                to = start + ((group * sizes.tiles + tile) * sizes.in_channels + c) * count * rows
                if channels < rows:
                    clear(packed, to, count * rows)
                for k in range(count):
                    place = source + c * sizes.in_step + taps[first_tap + k]
                    copy_spaced(packed, to + k * rows, 1, weight, place, sizes.channel_step, channels)


# ---- arrays for a kernel ---------------------------------------------------------------------------------------------


class _Unlocked:
    """Shows the memory of an array as writable."""

    def __init__(self, a):
        address, _ = a.__array_interface__["data"]
        self.__array_interface__ = {**a.__array_interface__, "data": (address, False)}
        self.owner = a


def flat(a):
    """Return C-contiguous ``a`` as one line, which Numba takes for writable.

    To Numba a read-only array is of another type, for which it would compile every kernel a second time. No kernel
    writes to its inputs.
    """
    if not a.flags.writeable:
        a = np.asarray(_Unlocked(a))
    return a.reshape(-1)


def new_array(shape, dtype):
    """Return an array of any content, for a kernel to fill: the one place where results come from."""
    return memory.empty(shape, dtype)


_own = threading.local()
_LINE = 64  # bytes of a line of the cache


def scratch(workers, size, dtype, use="tasks"):
    """Return an array (workers, size) of any content, kept for the next call from the same Python thread.

    It starts at a cache line, and so do its rows if ``size`` is a multiple of 16: a vector of 64 bytes that lies in two
    lines takes twice as long to load. Fresh memory costs a page fault every 4 KB, which for a small convolution is more
    than the work itself. Arrays of different ``use`` do not overlap.
    """
    kept = getattr(_own, "buffers", None)
    if kept is None:
        kept = _own.buffers = {}
    key, needed = (np.dtype(dtype), use), workers * size
    if key not in kept or kept[key].size < needed:
        spare = np.empty(needed + _LINE // key[0].itemsize, dtype)
        kept[key] = spare[-spare.ctypes.data % _LINE // key[0].itemsize :][:needed]
    return kept[key][:needed].reshape(workers, size)
