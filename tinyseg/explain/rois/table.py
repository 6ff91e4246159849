"""A `RoITrace` as a table in plain text, to be followed with paper and pencil."""

from tinyseg.explain.text import side_by_side

#: So many lines of bins are printed unless bins are asked for.
MOST_LINES = 60
#: So many values of a bin of RoIPool, and samples in a sum, are written one by one.
_MOST_VALUES = 36
_CENTRES = "from here on, a cell's centre is at its whole number"


def table(trace, channel, bins=None):
    """Return a trace as text.

    Parameters
    ----------
    trace : RoITrace
        The trace.
    channel : int
        Whose values.
    bins : list of (int, int), optional
        Which bins; as many as fit without it.

    Returns
    -------
    str
    """
    (down, across), (_, height, width) = trace.output_size, trace.features.shape
    every = [(py, px) for py in range(down) for px in range(across)]
    chosen = every if bins is None else bins
    lines: list = []
    shown = 0
    for py, px in chosen:
        of_bin = bin_lines(trace, py, px, channel)
        if bins is None and lines and len(lines) + len(of_bin) > MOST_LINES:
            break
        lines += of_bin
        shown += 1
    rest = len(chosen) - shown
    more = [f"... and {rest} more bins: .table(bins=[(row, column), ...]) shows those you want"] if rest else []
    of = f"channel {channel} of {len(trace.features)}, " if len(trace.features) > 1 else ""
    head = f"{trace.title}: {of}{height} x {width} cells, {trace.dtype}, to {down} x {across} bins"
    return "\n".join([head, "", *box_lines(trace), "", *lines, *more, "", "output", *_grid(trace.output[channel])])


def number(value, digits=6):
    """Return a number in few digits, without the sign of zero.

    Parameters
    ----------
    value : float
        The number.
    digits : int
        Significant ones.

    Returns
    -------
    str
    """
    return f"{value + 0.0:.{digits}g}"


def box_lines(trace):
    """Return the way from the box to its bins, as lines of text.

    Parameters
    ----------
    trace : RoITrace
        The trace.

    Returns
    -------
    list of str
    """
    rows, columns = trace.rows, trace.columns
    steps = [("box", trace.roi, "picture pixels"), (f"* {number(trace.spatial_scale)}", trace.scaled, "feature cells")]
    if trace.op == "roi_pool":
        rounded = (columns.start, rows.start, columns.end, rows.end)
        steps.append(("rounded", rounded, f"cells, both ends included; {_CENTRES}"))
        how = f"{number(rows.size)} x {number(columns.size)} cells (last - first + 1, at least 1)"
        made = f"a bin {number(rows.bin_size)} x {number(columns.bin_size)}; it takes every cell that it touches"
    elif trace.op == "roi_align":
        shifted = tuple(float(corner - trace.dtype.type(0.5)) for corner in trace.scaled) if trace.aligned else None
        steps.append(("- 0.5" if trace.aligned else "- 0", shifted or trace.scaled, _CENTRES))
        if trace.box != steps[-1][1] and not trace.aligned:
            steps.append(("at least 1", trace.box, "not aligned: a box is at least one cell wide and high"))
        how = f"{number(rows.size)} x {number(columns.size)} cells"
        ratio = trace.sampling_ratio
        each = "cells of a bin, rounded up" if ratio <= 0 else f"sampling_ratio {ratio}"
        made = f"a bin {number(rows.bin_size)} x {number(columns.bin_size)}; {rows.grid} x {columns.grid} samples each"
        made += f" ({each})"
    else:
        _, height, width = trace.features.shape
        how = f"/ {width} * {width - 1}, y / {height} * {height - 1}: where the outer samples are"
        steps.append(("corners", trace.box, f"x {how}; {_CENTRES}"))
        how = f"{number(rows.size)} x {number(columns.size)} cells"
        apart = [
            f"{number(axis.bin_size)} apart {way}" if bins > 1 else f"in the middle {way}"
            for axis, bins, way in zip((rows, columns), trace.output_size, ("down", "across"), strict=True)
        ]
        made = f"one sample a bin, {apart[0]}, {apart[1]}"
    table = side_by_side([("", "x1", "y1", "x2", "y2"), *((name, *map(number, c)) for name, c, _ in steps)])
    words = ["", *(words for _, _, words in steps)]
    return [*(f"{line}   {word}".rstrip() for line, word in zip(table, words, strict=True)), f"size {how}, {made}"]


def bin_lines(trace, py, px, channel):
    """Return how an output comes about, as lines of text.

    Parameters
    ----------
    trace : RoITrace
        The trace.
    py, px : int
        Which bin.
    channel : int
        Whose values.

    Returns
    -------
    list of str
    """
    return (_pool_bin if trace.op == "roi_pool" else _sample_bin)(trace, py, px, channel)


def _pool_bin(trace, py, px, channel):
    """Return the lines of a bin of RoIPool."""
    cells = trace.cells(py, px, channel)
    if not cells:
        return [f"bin ({py}, {px})  no cells on the map: 0"]
    rows: list = [[] for _ in range(trace.rows.low[py], trace.rows.high[py])]
    for cell in cells:
        rows[cell.row - trace.rows.low[py]].append(number(cell.value))
    text = " / ".join(" ".join(row) for row in rows) if len(cells) <= _MOST_VALUES else f"{len(cells)} cells"
    best = next((cell for cell in cells if cell.weight), None)
    where = f"row {best.row}, column {best.column}" if best else "no cell: all are NaN or -inf"
    span = f"rows {_span(trace.rows, py)}, columns {_span(trace.columns, px)}"
    result = f"{text}  ->  {number(trace.output[channel, py, px])} ({where})"
    return [f"bin ({py}, {px})  {span}", f"  {result}"]


def _span(axis, p):
    """Return the first and last cell of a bin in words."""
    return f"{axis.low[p]} to {axis.high[p] - 1}"


def _sample_bin(trace, py, px, channel):
    """Return the lines of a bin of RoIAlign or crop_and_resize."""
    rows, columns, (_, height, width) = trace.rows, trace.columns, trace.features.shape
    total, samples = rows.grid * columns.grid, trace.samples(py, px, channel)
    span = ""
    if rows.edges is not None:
        (top, bottom), (left, right) = ((axis.edges[p], axis.edges[p + 1]) for axis, p in ((rows, py), (columns, px)))
        span = f"rows {number(top)} to {number(bottom)}, columns {number(left)} to {number(right)}"
    lines = [f"bin ({py}, {px})  {span}".rstrip()]
    table = [("y", "x", "", "value")]
    for sample in samples:
        terms = [
            f"{number(cell.weight)} * {number(cell.value)}"
            for cell in sample.cells
            if cell.weight or cell.value - cell.value  # 0 times infinity is no 0
        ]
        words = " + ".join(terms) if sample.on_map else "off the map"
        if sample.on_map and not (0 <= sample.y <= height - 1 and 0 <= sample.x <= width - 1):
            words += " (moved to the border)"
        times = f" ({sample.times} at one place)" if sample.times > 1 else ""
        table.append((number(sample.y), number(sample.x), words + times, f"= {number(sample.value)}"))
    lines += [f"  {line}" for line in side_by_side(table)]
    result = number(trace.output[channel, py, px])
    missing = total - sum(sample.times for sample in samples)
    if not samples:
        return [*lines[:1], f"  {total} samples, all off the map: 0" if total else "  a box without size, no sample: 0"]
    if total > 1:
        values = [(f"{s.times} * " if s.times > 1 else "") + number(s.value) for s in samples]
        words = " + ".join(values) if len(values) <= _MOST_VALUES else f"sum of the {len(values)} values"
        lost = f", {missing} more off the map" if missing else ""
        lines.append(f"  ({words}) / {total} samples{lost} = {result}")
    return lines


def _grid(output):
    """Return the output as lines."""
    return [f"  {line}" for line in side_by_side([[number(value) for value in row] for row in output])]
