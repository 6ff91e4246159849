"""The vector instructions under RoIPool: for each channel the largest number of some cells, and its cell.

A strip of channels, ``STRIP`` vectors or one, stays in registers while it goes through the cells. Addresses are element
indices into flat arrays that nothing here checks; rows of channels are filled up to whole vectors.
"""

from typing import Any

from llvmlite import ir
from numba import extending

from kernels.cpu.tiling import VECTOR_BYTES
from kernels.cpu.vector_writer import signature_of, write_with
from kernels.jit import jit

intrinsic: Any = extending.intrinsic  # to a type checker, callers would have to pass the typing context

#: Vectors of a strip.
STRIP = 4


def _largest_of_rows(vectors):
    @intrinsic
    def largest_of_rows(typing_context, to, places, to_start, lowest, source, source_start, step, cells, count):
        """Write one strip of what `largest_of_rows` writes."""
        signature = signature_of(to, places, to_start, lowest, source, source_start, step, cells, count)
        return signature, write_with(_write_largest_of_rows, vectors)

    return largest_of_rows


def _write_largest_of_rows(
    w, vectors, to, places, to_start, lowest, source, source_start, step, cells, count
):  # fmt: skip
    source = w.at(source, source_start)
    whole = ir.IntType(8 * w.itemsize)
    none = w.builder.bitcast(w.splat(ir.Constant(whole, -1)), w.vector)

    def take_over(t, state):
        cell = w.get(cells, t)
        row = w.at(source, w.builder.mul(cell, step))
        here = w.builder.bitcast(w.splat(cell if w.itemsize == 8 else w.builder.trunc(cell, whole)), w.vector)
        largest, place = state[:vectors], state[vectors:]
        values = [w.load(row, v * w.lanes) for v in range(vectors)]
        wins = [w.builder.fcmp_ordered(">", value, old) for value, old in zip(values, largest, strict=True)]
        largest = [w.builder.select(*each) for each in zip(wins, values, largest, strict=True)]
        return largest + [w.builder.select(win, here, old) for win, old in zip(wins, place, strict=True)]

    initial = [w.splat(w.get(lowest, w.int(0)))] * vectors + [none] * vectors
    state = w.loop(count, initial, take_over)
    for v in range(vectors):
        w.store(state[v], w.at(w.at(to, to_start), v * w.lanes))
        w.store(state[vectors + v], w.at(w.at(places, to_start), v * w.lanes))


_largest_of_strip, _largest_of_vector = _largest_of_rows(STRIP), _largest_of_rows(1)


@jit
def largest_of_rows(to, places, to_start, lowest, source, source_start, step, cells, count):
    """Write the largest numbers of ``count`` rows of ``step`` numbers, and the cells in which they stand; -1 for none.

    The row of cell ``cells[t]`` is at ``source_start + cells[t] * step``. Cells are written as whole numbers, into the
    bits of a floating type. Numbers must exceed ``lowest[0]``; the first of equal ones counts, and NaN never does.
    """
    lanes = VECTOR_BYTES // to.itemsize
    whole = step - step % (STRIP * lanes)
    for i in range(0, whole, STRIP * lanes):
        _largest_of_strip(to, places, to_start + i, lowest, source, source_start + i, step, cells, count)
    for i in range(whole, step, lanes):
        _largest_of_vector(to, places, to_start + i, lowest, source, source_start + i, step, cells, count)


@intrinsic
def fetch(typing_context, values, places, index):
    """Fetch the cache lines of element ``index`` of two arrays; it may lie beyond their ends."""

    def write(w, values, places, index):
        w.prefetch(w.at(values, index))
        w.prefetch(w.at(places, index))

    return signature_of(values, places, index), write_with(write)


@jit
def whole_vectors(channels, itemsize):
    """Return how many numbers a row of channels takes up, filled up to whole vectors."""
    size = VECTOR_BYTES // itemsize
    return (channels + size - 1) // size * size
