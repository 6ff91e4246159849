"""Results as text: a line per row while measuring, a page in Markdown at the end, what changed since an older run."""

import math

import numpy as np

from benchmarks import peaks
from benchmarks.measure import ratio


def milliseconds(spread):
    """Return a time with its middle half, ``"5.61 [5.58, 5.70]"``, in milliseconds."""
    return f"{digits(spread.median * 1e3)} [{digits(spread.low * 1e3)}, {digits(spread.high * 1e3)}]"


def digits(value):
    """Return a number with three digits that count."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def times_text(spread):
    """Return a ratio with its middle half."""
    return f"{spread.median:.2f} [{spread.low:.2f}, {spread.high:.2f}]"


def rates(row, entrant, limits):
    """Return GFLOP/s, GB/s and the share of this machine's bound of an entrant's median, each None if it has none."""
    seconds = row.spread(entrant).median
    least, _ = peaks.bound(row.flops, row.bytes, limits)
    return (
        row.flops / seconds / 1e9 if row.flops else None,
        row.bytes / seconds / 1e9 if row.bytes else None,
        least / seconds if least else None,
    )


def ratios(row, names):
    """Return for each of ``names`` that was timed how many times the first one's seconds it took."""
    first = row.timings.get(names[0])
    if first is None or not first.seconds:
        return {}
    others = {name: row.timings[name].seconds for name in names[1:] if name in row.timings}
    return {name: ratio(first.seconds, seconds) for name, seconds in others.items() if seconds}


def line(row, names, limits):
    """Return a row as one line for the terminal."""
    words = []
    timed = [name for name in names if row.spread(name)]
    if timed and timed[0] == names[0]:
        flops, size, share = rates(row, names[0], limits)
        words.append(f"{names[0]} {milliseconds(row.spread(names[0]))} ms")
        words += [f"{value:.3g} {unit}" for value, unit in ((flops, "GFLOP/s"), (size, "GB/s")) if value]
        words += [f"{share:.0%} of peak"] if share else []
    for name, times in ratios(row, names).items():
        words.append(f"{name} {digits(row.spread(name).median * 1e3)} ms, {times_text(times)} times")
    words += [f"{name}: ERROR {t.error}" for name, t in row.timings.items() if t.error]
    return f"{row.name}  " + "  ".join(words)


def summary(run):
    """Return lines on all rows: mean ratios, where we are slower, errors, who was absent."""
    names, lines = run.names(), []
    for other in names[1:]:
        spreads = {row.name: found for row in run.rows if (found := ratios(row, names).get(other))}
        if spreads:
            mean = np.exp(np.mean([math.log(spread.median) for spread in spreads.values()]))
            lines.append(f"{other}: {mean:.2f} times the time of {names[0]}, geometric mean of {len(spreads)} rows")
            slower = [f"{name} {spread.median:.2f}" for name, spread in spreads.items() if spread.high < 1]
            if slower:
                lines.append(f"{names[0]} is slower than {other} in {len(slower)}: {'; '.join(slower)}")
    lines += [f"NOT MEASURED {name}: {why}" for name, why in run.absent.items()]
    lines += [f"ERROR {row.name}, {name}: {error}" for row, name, error in run.errors()]
    if not run.complete:
        lines.append("stopped before the end: the rows are those measured until then")
    return lines


# ---- Markdown --------------------------------------------------------------------------------------------------------


def markdown(run):
    """Return a page with all rows."""
    limits, names = run.peaks, run.names()
    about = ", ".join(f"{key} {value}" for key, value in run.machine.items())
    parts = [
        "# Benchmark",
        f"`{run.command}`",
        about[0].upper() + about[1:] + ".",
        f"Peaks measured at the start: {limits['flops'] / 1e9:.0f} GFLOP/s of multiply-adds in registers, "
        f"{limits['bytes'] / 1e9:.1f} GB/s read and written by copying.",
        _LEGEND,
    ]
    for kind in dict.fromkeys(row.parts[0] for row in run.rows):
        rows = [row for row in run.rows if row.parts[0] == kind]
        parts += [f"## {kind.capitalize()}", table(_cells(rows, names, limits))]
    found = summary(run)
    if found:
        parts += ["## Summary", "\n".join(f"- {line}" for line in found)]
    return "\n\n".join(parts) + "\n"


_LEGEND = """\
Times are milliseconds: the median of the turns, with its middle half (25 to 75 %). Every result was checked against \
what stands under "checked" before it was timed. "times" is the time of the other by ours, turn by turn. GFLOP/s \
counts the multiplications and additions of the textbook; GB/s counts every number that must be read or written once. \
"Of peak" is the least time that either allows on this machine, by the time taken: Winograd convolution, which \
multiplies less, and arrays that stay in the cache can exceed it. Times on a GPU are its own, by its events, over \
arrays that lie there. "First" is the first call in seconds, with what it \
compiled or read from the disk."""


def _cells(rows, names, limits):
    """Return the cells of a table, headings first, without the columns that are empty all the way down."""
    ours, *others = names
    head = ["case", f"{ours} ms", "GFLOP/s", "GB/s", "of peak", "first s"]
    head += [title for other in others for title in (f"{other} ms", "times")]
    head += [f"{name} MB" for name in names] + ["checked"]
    return without_empty_columns([head, *(_row_cells(row, names, limits) for row in rows)])


def without_empty_columns(rows):
    """Return cells, headings first, without the columns that are empty all the way down."""
    kept = [i for i in range(len(rows[0])) if any(cells[i] for cells in rows[1:])]
    return [[cells[i] for i in kept] for cells in rows]


def _row_cells(row, names, limits):
    """Return the cells of one row."""
    ours, *others = names
    cells = ["/".join(row.parts[1:]), _time_cell(row, ours)]
    found = rates(row, ours, limits) if row.spread(ours) else (None, None, None)
    cells += [f"{value:.3g}" if value else "" for value in found[:2]] + [f"{found[2]:.0%}" if found[2] else ""]
    first = row.timings[ours].first if ours in row.timings else math.nan
    cells.append("" if math.isnan(first) else f"{first:.2f}")
    times = ratios(row, names)
    for other in others:
        cells += [_time_cell(row, other), times_text(times[other]) if other in times else ""]
    cells += [f"{row.memory[name] / 1e6:.0f}" if row.memory.get(name) else "" for name in names]
    return [*cells, row.checked]


def _time_cell(row, name):
    """Return an entrant's time, or that it failed."""
    if name in row.timings and row.timings[name].error:
        return "ERROR"
    spread = row.spread(name)
    return milliseconds(spread) if spread else ""


#: Headings of columns of text.
_TEXTS = ("case", "checked", "goal", "notes", "kernel", "kernels")


def table(rows):
    """Return cells as a Markdown table, numbers to the right."""
    head, *body = rows
    lines = [head, [":--" if title in _TEXTS else "--:" for title in head], *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# ---- comparing runs --------------------------------------------------------------------------------------------------


def changes(found, old, new):
    """Return lines that say what changed between two runs."""
    lines = []
    if any(old.machine.get(key) != new.machine.get(key) for key in ("gpu", "processor", "threads")):
        lines.append("note: the two runs were not on the same kind of GPU or processor, or not with as many threads")
    for change in found:
        lines.append(
            f"{change.ratio:6.2f} times the old time  {change.mark:6}  {change.name}, {change.entrant}: "
            f"{milliseconds(change.old)} to {milliseconds(change.new)} ms"
        )
    marks = [change.mark for change in found]
    lines.append(
        f"{len(found)} times in both: {marks.count('faster')} faster and {marks.count('slower')} slower outside the "
        "spread of both runs. Where a library that did not change is marked, the machine was not the same"
    )
    return lines
