"""What the analysis of `cuda_trace` gives, a row for each line and a problem for each mistake; and what it shares."""

import linecache
from typing import NamedTuple

import numpy as np


class CudaTraceRow(NamedTuple):
    """What one line of a kernel does with one array.

    Attributes
    ----------
    line : int
        Of the file.
    source : str
        The line.
    file : str
    array : str
        What the kernel calls it.
    space : {"global", "shared"}
    kind : {"read", "write", "atomic"}
    accesses : int
        Of elements, by all threads.
    instructions : int
        How often a warp came here; a wide read of several elements counts once.
    pieces : int
        In global memory sectors of 32 bytes; in shared memory passes through the banks. Added up over instructions.
    least_pieces : int
        As few as it would take if the threads' elements lay side by side.
    most_pieces : int
        Of one instruction.
    lines : int
        Lines of 128 bytes in global memory, added up over instructions; 0 in shared memory.
    """

    line: int
    source: str
    file: str
    array: str
    space: str
    kind: str
    accesses: int
    instructions: int
    pieces: int
    least_pieces: int
    most_pieces: int
    lines: int


class CudaTraceProblem(NamedTuple):
    """Something to look into.

    Attributes
    ----------
    kind : str
        A mistake: ``"race"``, ``"out of bounds"``, ``"negative index"``, ``"uninitialised"`` or ``"barrier"``; or
        what makes a kernel slow: ``"uncoalesced"``, where global memory takes half as many sectors again as it need,
        not counting one more than least nor the first four of an instruction, or ``"bank conflict"``, where shared
        memory takes a quarter more passes.
    line : int
        Of the file.
    source : str
        The line.
    file : str
    array : str
        What the kernel calls it, ``""`` for barriers.
    times : int
        How many accesses, elements or instructions are concerned.
    text : str
        What happens, in words.
    """

    kind: str
    line: int
    source: str
    file: str
    array: str
    times: int
    text: str

    def __str__(self):
        return f"line {self.line}, {self.kind}: {self.text}"


def source_line(file, line):
    return linecache.getline(file, line).strip()


def grouped(*keys):
    """Return an order that brings equal keys together, and where each group begins in it."""
    order = np.lexsort(keys[::-1])
    new = np.zeros(len(order), bool)
    new[:1] = True
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(new)


def unravel(number, sizes):
    """Return the three-part index of a place, x first."""
    return number % sizes[0], number // sizes[0] % sizes[1], number // (sizes[0] * sizes[1])
