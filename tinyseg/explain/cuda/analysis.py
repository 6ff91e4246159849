"""What a log of accesses tells: pieces of memory for each warp, conflicts of banks, races, and what lies outside."""

from typing import NamedTuple

import numpy as np

from tinyseg.explain.cuda.arrays import ATOMIC, KINDS, READ
from tinyseg.explain.cuda.races import Races
from tinyseg.explain.cuda.rows import CudaTraceProblem, CudaTraceRow, grouped, source_line
from tinyseg.explain.cuda.threads import WARP, first_axes

SECTOR, LINE, BANKS, WORD = 32, 128, 32, 4  # bytes, bytes, banks, bytes of a bank


class Findings(NamedTuple):
    """All that a trace found. The arrays have one number for each access, in the order in which they ran."""

    rows: list
    problems: list
    sites: list
    site: np.ndarray
    thread: np.ndarray  # of the grid
    byte: np.ndarray
    order: np.ndarray
    turn: np.ndarray  # how often the warp came to the site before
    size: np.ndarray  # bytes asked for; 0 where the access before this one, of the same thread, asked for these as well


def analyse(log, block_threads, grid, block, barriers):
    """Return what a log of accesses tells.

    Parameters
    ----------
    log : Log
        The accesses.
    block_threads : int
        Threads of a block.
    grid, block : (int, int, int)
        Blocks of the grid, threads of a block.
    barriers : dict
        What was wrong at barriers: texts by kind and place.

    Returns
    -------
    Findings
    """
    site, thread, byte, order, written, rounds = log.table().T
    warp, lane = _warp_lane(thread, block_threads)
    size = _sizes(log.sites, site, thread, byte, order)
    first = size > 0
    instruction = _instructions(site[first], warp[first], thread[first], rounds[first])[np.cumsum(first) - 1]
    rows = _rows(log.sites, site, lane, byte, size, instruction)
    problems = [
        CudaTraceProblem(kind, line, source_line(file, line), file, "", 1, text)
        for (kind, (file, line, _)), text in barriers.items()
    ]
    problems += _outside(log.outside) + _unset(log.unset)
    races = Races(log.sites, site, thread, byte, order, written, block_threads, grid, block)
    problems += races.within_blocks() + races.between_blocks()
    problems += [problem for row in rows if (problem := _slow(row)) is not None]
    sites = list(log.sites)
    turn = _turns(warp, site, instruction)
    return Findings([row for row, _ in rows], problems, sites, site, thread, byte, order, turn, size)


# ---- pieces of memory ------------------------------------------------------------------------------------------------


def _numbered(order, starts):
    """Return the number of its group for each element."""
    group = np.zeros(len(order), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    return group


def _sizes(sites, site, thread, byte, order):
    """Return how many bytes each access asks for, 0 for reads that are part of the one before: see `cuda_trace`."""
    item = np.array([one.memory.itemsize for one in sites], np.int64)[site]
    piece = np.array([one.memory.piece if one.kind == READ else 0 for one in sites], np.int64)[site]
    joins = np.zeros(len(site), bool)
    same = (site[1:] == site[:-1]) & (thread[1:] == thread[:-1]) & (order[1:] == order[:-1])
    inside = byte[1:] % np.maximum(piece[1:], 1) != 0  # a piece begins anew
    joins[1:] = same & inside & (piece[1:] > 0) & (byte[1:] == byte[:-1] + item[1:])
    starts = np.flatnonzero(~joins)
    size = np.zeros(len(site), np.int64)
    size[starts] = item[starts] * np.diff(starts, append=len(site))
    return size


def _instructions(site, warp, thread, rounds):
    """Return the number of the warp's instruction that each access belongs to.

    Threads that come to a site in the same rounds of all loops around it do so together; where they come there several
    times in one round (in a while loop), the first time of each belongs together, and so on.
    """
    order, starts = grouped(site, thread, rounds)  # keeps equal ones in order
    again = np.zeros(len(site), np.int64)
    again[order] = np.arange(len(site)) - np.repeat(starts, np.diff(starts, append=len(site)))
    return _numbered(*grouped(site, warp, rounds, again))


def _turns(warp, site, instruction):
    """Return how many instructions of its warp at its site come before each access's."""
    _, starts = grouped(site, warp)
    first = np.full(starts.size, np.iinfo(np.int64).max)
    group = _numbered(*grouped(site, warp))
    np.minimum.at(first, group, instruction)
    return instruction - first[group]  # they are numbered by site and warp


def _distinct(group, *keys):
    """Return for each group how many different keys it has."""
    order, starts = grouped(group, *keys)
    return np.bincount(group[order[starts]], minlength=group.max(initial=-1) + 1)


def _warp_lane(thread, block_threads):
    """Return the warp of the grid and the lane of threads."""
    block, place = np.divmod(thread, block_threads)
    warp, lane = np.divmod(place, WARP)
    return block * -(-block_threads // WARP) + warp, lane


def _rows(sites, site, lane, byte, size, instruction):
    """Return a row and how many pieces too many it has, for each line, array and kind of access."""
    places: dict = {}
    for number, one in enumerate(sites):
        places.setdefault((one.file, one.line, one.name, one.kind, one.memory.space), []).append(number)
    by_site = np.argsort(site, kind="stable")
    first = np.searchsorted(site[by_site], np.arange(len(sites) + 1))
    rows = []
    for (file, line, name, kind, space), numbers in places.items():
        if space not in ("global", "shared"):
            continue
        counts, accesses = [], 0
        for number in numbers:
            all_of_site = by_site[first[number] : first[number + 1]]
            accesses += len(all_of_site)
            for width in np.unique(size[all_of_site]):  # none where all were outside
                own = all_of_site[size[all_of_site] == width]
                of = np.unique(instruction[own], return_inverse=True)[1]
                if width and space == "global":
                    counts.append(_global(of, byte[own], lane[own], width))
                elif width:
                    counts.append(_shared(of, byte[own], lane[own], width, kind == ATOMIC))
        if not counts:
            continue
        pieces, least, lines = map(np.concatenate, zip(*counts, strict=True))
        row = CudaTraceRow(
            line, source_line(file, line), file, name, space, KINDS[kind], accesses, len(pieces),
            int(pieces.sum()), int(least.sum()), int(pieces.max()), int(lines.sum()),
        )  # fmt: skip
        # arrays that begin within a sector cost one more, and a line's worth of sectors is little in any case
        enough = np.maximum(least + 1, LINE // SECTOR) if space == "global" else least
        rows.append((row, int(np.maximum(pieces - enough, 0).sum())))
    rows.sort(key=lambda row: (row[0].file, row[0].line, row[0].array, KINDS.index(row[0].kind)))
    return rows


def _global(instruction, byte, lane, size):
    """Return sectors, least sectors and lines of each instruction.

    The least is what threads touch whose elements lie side by side. Where some threads take no part, theirs are holes.
    """
    twice, ends = np.tile(instruction, 2), np.concatenate([byte, byte + size - 1])
    elements = _distinct(instruction, byte)
    sectors, lines = (_distinct(twice, ends // unit) for unit in (SECTOR, LINE))
    side_by_side = np.concatenate([lane * size, (lane + 1) * size - 1]) // SECTOR
    with_holes = np.minimum(_distinct(twice, side_by_side), elements)
    least = np.minimum(np.maximum(-(-elements * size // SECTOR), with_holes), sectors)
    return sectors, least, lines


def _shared(instruction, byte, lane, size, atomic):
    """Return passes, least passes and zeros of each instruction."""
    phases = max(1, size // WORD)  # a pass serves 32 banks of 4 bytes, so fewer threads of a larger type
    phase = lane // (WARP // min(phases, WARP))
    word = byte // WORD
    bank = word % BANKS
    other = lane if atomic else word  # threads that want the same word get it together, unless they change it
    order, starts = grouped(instruction, phase, bank, other)
    once = order[starts]
    order, starts = grouped(instruction[once], phase[once], bank[once])
    ways = np.diff(starts, append=len(order))
    first = once[order[starts]]
    order, starts = grouped(instruction[first], phase[first])
    worst = np.maximum.reduceat(ways[order], starts)
    of = instruction[first[order[starts]]]
    passes = np.bincount(of, weights=worst).astype(np.int64)
    return passes, np.bincount(of), np.zeros_like(passes)


def _slow(row_and_excess):
    """Return the problem of a row that takes half as many pieces again as it need, None if it does not."""
    row, excess = row_and_excess
    if row.kind == "atomic" and row.space == "shared":
        return None
    if 2 * excess <= row.least_pieces if row.space == "global" else 4 * excess <= row.least_pieces:
        return None
    average, least = row.pieces / row.instructions, row.least_pieces / row.instructions
    if row.space == "global":
        kind = "uncoalesced"
        text = (
            f"a warp's {row.kind} of {row.array!r} touches {average:.3g} sectors of {SECTOR} bytes, "
            f"where {least:.3g} would do side by side"
        )
    else:
        kind = "bank conflict"
        text = (
            f"a warp's {row.kind} of {row.array!r} takes {average:.3g} passes through the banks instead of "
            f"{least:.3g}, at worst {row.most_pieces}"
        )
    return CudaTraceProblem(kind, row.line, row.source, row.file, row.array, row.instructions, text)


# ---- single accesses -------------------------------------------------------------------------------------------------


def _by_site(events, *more):
    """Return events by line, array, kind of access and what else is asked for."""
    found: dict = {}
    for event in events:
        site = event.site
        found.setdefault((site.file, site.line, site.name, site.kind, *(getattr(event, m) for m in more)), []).append(
            event
        )
    return found


def _outside(events):
    """Return the problems of accesses outside of arrays."""
    problems = []
    for (file, line, name, kind, done), group in _by_site(events, "done").items():
        one = group[0]
        index = one.at[0] if len(one.at) == 1 else one.at
        times = f"{len(group)} times, first by" if len(group) > 1 else "by"
        text = f"{KINDS[kind]} of {name}[{index}], whose shape is {one.shape}, {times} {_who(one)}"
        if done:
            text += "; Numba counts it from the end"
        what = "negative index" if done else "out of bounds"
        problems.append(CudaTraceProblem(what, line, source_line(file, line), file, name, len(group), text))
    return problems


def _unset(events):
    """Return the problems of reads before anything was written."""
    problems = []
    for (file, line, name, _), group in _by_site(events).items():
        one = group[0]
        index = one.at[0] if len(one.at) == 1 else one.at
        times = f", {len(group)} times, first by" if len(group) > 1 else ", by"
        text = f"{name}[{index}] is read, though no thread has written to it{times} {_who(one)}"
        problems.append(CudaTraceProblem("uninitialised", line, source_line(file, line), file, name, len(group), text))
    return problems


def _who(event):
    return f"thread {first_axes(event.thread)} of block {first_axes(event.block)}"
