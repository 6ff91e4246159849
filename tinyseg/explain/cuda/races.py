"""Races: what `cuda_trace` finds where two threads use one element in no order."""

import numpy as np

from tinyseg.explain.cuda.arrays import ATOMIC, READ, WARP_BARRIERS, WRITE
from tinyseg.explain.cuda.rows import CudaTraceProblem, grouped, source_line, unravel
from tinyseg.explain.cuda.threads import WARP, first_axes

_LOOKED_AT = 10_000  # elements with races: those beyond are left out


class Races:
    """Accesses of two threads to one element, in no order, of which one writes and not both are atomic.

    Writes of the same value by several threads, with no read among them, are none: the result is the same.
    """

    def __init__(self, sites, site, thread, byte, order, written, block_threads, grid, block):
        self._sites, self._site, self._thread, self._byte = sites, site, thread, byte
        self._order, self._written = order, written
        self._threads, self._grid, self._block_sizes = block_threads, grid, block
        self._block = thread // block_threads
        memories = {id(one.memory): number for number, one in enumerate(sites)}
        self._memory = np.array([memories[id(one.memory)] for one in sites], np.int64)[site]
        self._kind = np.array([one.kind for one in sites], np.int64)[site]
        self._global = np.array([one.memory.space == "global" for one in sites], bool)[site]

    def within_blocks(self):
        """Return the races of threads of a block, between two barriers."""
        order, starts = grouped(self._memory, self._block, self._byte, self._order // WARP_BARRIERS)
        suspects = self._suspects(order, starts, self._thread)
        return self._problems(suspects, self._unordered, "with no barrier between")

    def between_blocks(self):
        """Return the races of threads of different blocks in global memory."""
        chosen = np.flatnonzero(self._global)
        order, starts = grouped(self._memory[chosen], self._byte[chosen])
        suspects = self._suspects(chosen[order], starts, self._block)
        return self._problems(suspects, lambda a, b: self._block[a] != self._block[b], "and nothing orders blocks")

    def _suspects(self, order, starts, who):
        """Return the groups of accesses to one element that more than one thread, or block, takes part in."""
        if not len(starts):
            return []

        def least_most(values):
            values = values[order]
            return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)

        (first, last), (low, high), (written, other) = map(least_most, (who, self._kind, self._written))
        suspect = (first != last) & (high > READ) & (low < ATOMIC)
        suspect &= ~((low == WRITE) & (high == WRITE) & (written == other))
        ends = np.append(starts[1:], len(order))
        return [order[starts[i] : ends[i]] for i in np.flatnonzero(suspect)]

    def _unordered(self, a, b):
        """Return whether two threads of a block are in no order: syncwarp orders those of a warp."""
        if self._thread[a] == self._thread[b]:
            return False
        warps = (self._thread[[a, b]] % self._threads) // WARP
        return warps[0] != warps[1] or self._order[a] == self._order[b]

    def _conflict(self, a, b):
        """Return whether two accesses to one element depend on their order."""
        kinds = {int(self._kind[a]), int(self._kind[b])}
        if kinds in ({READ}, {ATOMIC}):
            return False
        return kinds != {WRITE} or self._written[a] != self._written[b]

    def _pair(self, group, unordered):
        """Return two accesses of a group that race, first one that writes; None if there are none."""
        _, first = np.unique(
            np.stack([self._thread[group], self._site[group], self._order[group], self._written[group]]),
            axis=1, return_index=True,
        )  # fmt: skip
        group = group[np.sort(first)]
        for a in group[self._kind[group] != READ]:
            for b in group:
                if self._conflict(a, b) and unordered(a, b):
                    return int(a), int(b)
        return None

    def _problems(self, suspects, unordered, why):
        """Return a problem for each pair of lines that race."""
        found: dict = {}
        for group in suspects[:_LOOKED_AT]:
            pair = self._pair(group, unordered)
            if pair is not None:
                a, b = (self._sites[self._site[i]] for i in pair)
                key = a.file, a.line, a.kind, a.name, b.line, b.kind
                found.setdefault(key, []).append(pair)
        return [self._problem(key, pairs, why) for key, pairs in found.items()]

    def _problem(self, key, pairs, why):
        file, line, kind, name, other_line, other_kind = key
        a, b = pairs[0]
        element = int(self._byte[a]) // self._sites[self._site[a]].memory.itemsize
        where = "the same line" if other_line == line else f"line {other_line}"
        verbs = ("reads", "writes to", "changes")
        text = (
            f"{self._thread_name(a)} {verbs[kind]} element {element} of {name!r}, and {self._thread_name(b)} "
            f"{verbs[other_kind]} it in {where}, {why}"
        )
        if len(pairs) > 1:
            text += f"; so at {len(pairs)} elements"
        return CudaTraceProblem("race", line, source_line(file, line), file, name, len(pairs), text)

    def _thread_name(self, access):
        block, place = divmod(int(self._thread[access]), self._threads)
        index, blocks = unravel(place, self._block_sizes), unravel(block, self._grid)
        return f"thread {first_axes(index)} of block {first_axes(blocks)}"
