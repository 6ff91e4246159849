"""What `cuda_trace` found: as rows and problems, as a table to print, as JSON, as a picture."""

from typing import NamedTuple

import numpy as np

from tinyseg.explain.cuda.arrays import KINDS, WARP_BARRIERS
from tinyseg.explain.cuda.rows import unravel
from tinyseg.explain.cuda.threads import WARP
from tinyseg.explain.text import ruled, strict_json

_MISTAKES = ("race", "out of bounds", "negative index", "uninitialised", "barrier")
_HEADER = ("line", "array", "memory", "", "accesses", "by warps", "threads", "pieces", "least", "source")
_NOTES = """\
by warps: how often a warp of 32 threads came here; threads: how many of it, on average. pieces: sectors of 32 bytes in
global memory, passes through the 32 banks in shared memory, each for one instruction of a warp; least: as few as it
takes when the elements of neighbouring threads lie side by side."""
_WIDEST = 48  # characters of the source


class CudaAccess(NamedTuple):
    """One access of one thread to one element.

    Attributes
    ----------
    array : str
    kind : {"read", "write", "atomic"}
    element : int
        Place in its memory, in elements.
    block, thread : (int, int, int)
        ``blockIdx`` and ``threadIdx``.
    line : int
    interval : int
        How many barriers of its block the thread has passed.
    turn : int
        How often its warp came here before.
    """

    array: str
    kind: str
    element: int
    block: tuple
    thread: tuple
    line: int
    interval: int
    turn: int


class CudaTrace:
    """A kernel's run: what `tinyseg.explain.cuda_trace` returns.

    Parameters
    ----------
    kernel : str
        Its name.
    grid, block : (int, int, int)
        Blocks of the grid, threads of a block.
    findings : Findings
        What `tinyseg.explain.cuda.analysis` made of the accesses.

    Attributes
    ----------
    rows : list of CudaTraceRow
        For each line and array, in the order of lines.
    problems : list of CudaTraceProblem
        Mistakes first, then what makes it slow.
    """

    def __init__(self, kernel, grid, block, findings):
        self.kernel, self.grid, self.block = kernel, grid, block
        self.rows, self.problems = findings.rows, findings.problems
        self._found = findings

    @property
    def mistakes(self):
        """Problems that make results wrong, or may."""
        return [problem for problem in self.problems if problem.kind in _MISTAKES]

    @property
    def slow(self):
        """Problems that cost time only: uncoalesced accesses and bank conflicts."""
        return [problem for problem in self.problems if problem.kind not in _MISTAKES]

    def totals(self):
        """Return how often each array is read, written and changed atomically.

        Returns
        -------
        dict of str to dict of str to int
            By array: ``{"read": 64, "write": 0, "atomic": 0}``.
        """
        totals: dict = {}
        for row in self.rows:
            totals.setdefault(row.array, dict.fromkeys(KINDS, 0))[row.kind] += row.accesses
        return totals

    def accesses(self, line=None, array=None):
        """Return single accesses, in the order in which they ran here.

        Parameters
        ----------
        line : int, optional
            Those of this line alone.
        array : str, optional
            Those of this array alone.

        Returns
        -------
        list of CudaAccess
        """
        found = self._found
        threads = int(np.prod(self.block))
        wanted = [self._matches(site, line, array) for site in found.sites]
        accesses = []
        for i in np.flatnonzero(np.array(wanted, bool)[found.site]):
            site, (block, thread) = found.sites[found.site[i]], divmod(int(found.thread[i]), threads)
            place = unravel(block, self.grid), unravel(thread, self.block)
            element = int(found.byte[i]) // site.memory.itemsize
            interval = int(found.order[i]) // WARP_BARRIERS
            accesses.append(
                CudaAccess(site.name, KINDS[site.kind], element, *place, site.line, interval, int(found.turn[i]))
            )
        return accesses

    def figure(self, line, array=None, warp=0, turn=0):
        """Draw which thread of a warp touches what, in one instruction.

        Parameters
        ----------
        line : int
            Of the source.
        array : str, optional
            Which array, where the line touches several. The first one in the table is taken if it is left out.
        warp : int
            Number of the warp in the grid, block after block.
        turn : int
            Which time that it comes there.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("trace.png")`` writes it; a notebook shows it.

        Raises
        ------
        ValueError
            If there is no such access.
        """
        from tinyseg.explain.cuda.figure import draw_instruction

        found = self._found
        rows = [row for row in self.rows if row.line == line and array in (None, row.array)]
        if not rows:
            lines = ", ".join(map(str, sorted({row.line for row in self.rows})))
            raise ValueError(f"line is {line}, array {array!r}: no such access; there are accesses in lines {lines}")
        number = next(
            i for i, site in enumerate(found.sites)
            if (site.line, site.name, KINDS[site.kind]) == (line, rows[0].array, rows[0].kind)
            and np.any(found.site == i)
        )  # fmt: skip
        threads = int(np.prod(self.block))
        first = warp // -(-threads // WARP) * threads + warp % -(-threads // WARP) * WARP
        last = min(first + WARP, (first // threads + 1) * threads)
        chosen = np.flatnonzero(
            (found.site == number)
            & (found.turn == turn)
            & (found.thread >= first)
            & (found.thread < last)
            & (found.size > 0)
        )
        if not len(chosen):
            raise ValueError(f"warp is {warp}, turn {turn}: this warp does not come to line {line} so often")
        memory, size = found.sites[number].memory, int(found.size[chosen].max())
        title = f"line {line}: {rows[0].source}\n{rows[0].kind} of {rows[0].array}, warp {warp}"
        return draw_instruction(found.thread[chosen] - first, found.byte[chosen], size, memory.space, title)

    def to_json(self):
        """Return rows, problems and totals as the text of a JSON object.

        Returns
        -------
        str
        """
        whole = {"kernel": self.kernel, "grid": self.grid, "block": self.block, "totals": self.totals()}
        rows, problems = ([part._asdict() for part in parts] for parts in (self.rows, self.problems))
        return strict_json({**whole, "rows": rows, "problems": problems})

    def __str__(self):
        blocks, threads = int(np.prod(self.grid)), int(np.prod(self.block))
        title = f"{self.kernel}: {_count(blocks, 'block')} of {_count(threads, 'thread')}"
        lines = [_HEADER, *map(_cells, self.rows)]
        table = ruled(lines, (1, 2, 3, 9))
        problems = [f"- {problem}" for problem in self.problems] or ["- none"]
        return "\n".join([title, "", *table, table[1], _NOTES, "", "Problems:", *problems])

    __repr__ = __str__

    @staticmethod
    def _matches(site, line, array):
        return line in (None, site.line) and array in (None, site.name)


def _cells(row):
    """Return a row as text."""
    each = row.pieces / row.instructions, row.least_pieces / row.instructions
    source = row.source if len(row.source) <= _WIDEST else row.source[: _WIDEST - 3] + "..."
    return (
        str(row.line), row.array, row.space, row.kind, str(row.accesses), str(row.instructions),
        f"{row.accesses / row.instructions:.3g}", *(f"{number:.3g}" for number in each), source,
    )  # fmt: skip


def _count(number, what):
    return f"{number} {what}" + ("s" if number != 1 else "")
