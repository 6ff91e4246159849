"""What the RoI operators make of a map, given the cells and samples of their bins: the naive kernels' arithmetic."""

from typing import NamedTuple

import numpy as np

#: Where RoIPool's search for the largest value starts, in both types.
LOWEST = -float(np.finfo(np.float32).max)
#: Samples on the map that a trace holds at most.
MOST_ON_MAP = 2**22


class RoICell(NamedTuple):
    """A cell that a bin or a sample reads.

    Attributes
    ----------
    row, column : int
        Which cell.
    weight : float
        Of its value in the sample, or in RoIPool's output: 1 for the largest, 0 for the others.
    value : float
        What it holds.
    """

    row: int
    column: int
    weight: float
    value: float


class RoISample(NamedTuple):
    """A sample of RoIAlign or crop_and_resize, of one channel.

    Attributes
    ----------
    y, x : float
        Where it is taken, in feature cells; a cell's centre is at a whole number.
    on_map : bool
        Whether it is read. If not, its value is 0 and it counts in the mean all the same.
    times : int
        How many samples are here.
    cells : tuple of RoICell
        The four around it, row by row, whose weights sum to 1; at a border one may be there twice. None if not read.
    value : float
        Interpolated between them, in the map's type.
    contribution : float
        Its part of the mean: value times its share of the samples, in float64.
    """

    y: float
    x: float
    on_map: bool
    times: int
    cells: tuple
    value: float
    contribution: float


def refuse_many(samples, what):
    """Refuse more samples than a trace can hold; ``what`` begins the message."""
    if samples > MOST_ON_MAP:
        raise ValueError(f"{what}, which makes {samples} samples on the map; expected at most {MOST_ON_MAP} in a trace")


def largest(maps, rows, columns):
    """Return RoIPool's output and the places of its maxima, both (C, oH, oW), of maps (C, H, W)."""
    width = maps.shape[2]
    lowest = maps.dtype.type(LOWEST)
    shape = (len(maps), len(rows.low), len(columns.low))
    output, argmax = np.zeros(shape, maps.dtype), np.full(shape, -1, np.int32)
    for py, (top, bottom) in enumerate(zip(rows.low, rows.high, strict=True)):
        for px, (left, right) in enumerate(zip(columns.low, columns.high, strict=True)):
            if bottom <= top or right <= left:
                continue
            cells = maps[:, top:bottom, left:right].reshape(len(maps), -1)
            cells = np.where(cells > lowest, cells, lowest)  # NaN never wins
            best = cells.argmax(axis=1)  # the first of equal ones
            output[:, py, px] = cells[np.arange(len(maps)), best]
            y, x = np.divmod(best, right - left)
            found = output[:, py, px] > lowest
            argmax[:, py, px] = np.where(found, (top + y) * width + left + x, -1)
    return output, argmax


def row_of_samples(maps, rows, columns, py, j):
    """Return values and contributions of the j-th row of samples of row ``py`` of bins: two (C, oW, most)."""
    on_map = rows.on_map[py, j] & columns.on_map
    wx0, wx1 = columns.weight_low, columns.weight_high
    upper, lower = maps[:, rows.low[py, j]], maps[:, rows.high[py, j]]
    value = rows.weight_low[py, j] * (wx0 * upper[:, columns.low] + wx1 * upper[:, columns.high])
    value = value + rows.weight_high[py, j] * (wx0 * lower[:, columns.low] + wx1 * lower[:, columns.high])
    value = np.where(on_map, value, value.dtype.type(0))
    share = rows.share(py)[j] * columns.share(slice(None))
    return value, np.where(on_map, share * value, 0.0)


def means(maps, rows, columns):
    """Return the output of RoIAlign or crop_and_resize, (C, oH, oW): contributions added up in the kernel's order."""
    output = np.zeros((len(maps), len(rows.times), len(columns.times)), maps.dtype)
    for py in range(output.shape[1]):
        mean = np.zeros((len(maps), output.shape[2]))
        for j in np.flatnonzero(rows.on_map[py]):
            parts = row_of_samples(maps, rows, columns, py, j)[1]
            # accumulate, unlike sum, adds from left to right
            mean = np.add.accumulate(np.concatenate([mean[:, :, None], parts], axis=2), axis=2)[:, :, -1]
        output[:, py] = mean
    return output
