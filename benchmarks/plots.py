"""Pictures of a run: ratios with their spread, and the roofline of this machine."""

import io
from itertools import cycle

from benchmarks import report
from tinyseg import files
from tinyseg.explain.networks.roofline import draw_roof, plain_ticks

#: Colours that those who do not see red or green can tell apart (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_GREY = "#888888"
#: Rows in a picture of ratios; more go to another picture.
_MOST_ROWS = 60


def draw_all(folder, run):
    """Draw every picture that a run has numbers for, as PNG and SVG."""
    names = run.names()
    for kind in dict.fromkeys(row.parts[0] for row in run.rows):
        rows = [row for row in run.rows if row.parts[0] == kind and report.ratios(row, names)]
        pieces = [rows[i : i + _MOST_ROWS] for i in range(0, len(rows), _MOST_ROWS)]
        for number, piece in enumerate(pieces, 1):
            suffix = f"_{number}" if len(pieces) > 1 else ""
            save(folder, f"ratios_{kind}{suffix}", ratios(piece, names, run.machine))
    if any(row.flops and row.bytes and row.spread(names[0]) for row in run.rows):
        save(folder, "roofline", roofline(run))


def machine_line(machine):
    """Return the GPU, where one takes part, the processor and the number of threads in words."""
    threads = machine["threads"]
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    return f"{gpu}{machine['processor']}, {threads} thread{'s' if threads > 1 else ''}"


def new_figure(width, height):
    """Return a figure of so many inches, and its axes without a box."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(folder, name, figure):
    """Write a figure as PNG and SVG, each whole or not at all."""
    for ending in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending)
        files.write_bytes(folder / f"{name}.{ending}", buffer.getvalue())


def ratios(rows, names, machine):
    """Return the picture of how many times our seconds the others took, a line per row."""
    ours, *others = names
    figure, axes = new_figure(9, 1.3 + 0.22 * len(rows))
    for name, colour in zip(others, cycle(COLOURS), strict=False):
        points = [(i, spread) for i, row in enumerate(rows) if (spread := report.ratios(row, names).get(name))]
        if not points:
            continue
        places = [i for i, _ in points]
        median = [spread.median for _, spread in points]
        sides = [[s.median - s.low for _, s in points], [s.high - s.median for _, s in points]]
        axes.errorbar(median, places, xerr=sides, fmt="o", ms=4, lw=1.2, color=colour, label=name)
    axes.axvline(1, color=_GREY, lw=1)
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.set_yticks(range(len(rows)), ["/".join(row.parts[1:]) for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"time, as a multiple of {ours}'s (right of 1: {ours} is faster); bars: middle half of the turns")
    figure.suptitle(machine_line(machine), fontsize=9, color="#444444")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8)
    return figure


def roofline(run):
    """Return the picture of what was reached, under the roof of what this machine can do."""
    figure, axes = new_figure(8, 5.5)
    ours = run.names()[0]
    points: dict[str, list] = {}
    for row in run.rows:
        if row.flops and row.bytes and (spread := row.spread(ours)):
            point = row.flops / row.bytes, row.flops / spread.median / 1e9
            points.setdefault(row.parts[1], []).append((*point, row.parts[-1] == "forward"))
    for (name, found), colour, marker in zip(points.items(), cycle(COLOURS), cycle("osD^v<>P"), strict=False):
        axes.plot([], [], marker, ms=5, color=colour, mew=1, label=name)
        for intensity, reached, forward in found:
            filling = colour if forward else "none"
            axes.plot(intensity, reached, marker, ms=5, mec=colour, mfc=filling, mew=1, alpha=0.8)
    draw_roof(axes, run.peaks, [intensity for found in points.values() for intensity, _, _ in found])
    axes.set_title(
        f"{ours} on {machine_line(run.machine)}; above the roof: Winograd "
        "multiplies less, and caches are faster than memory", fontsize=8, color="#444444",
    )  # fmt: skip
    axes.legend(title="filled: forward", title_fontsize=8, fontsize=8, frameon=False, loc="lower right")
    return figure
