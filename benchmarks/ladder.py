"""One operator in rising versions, the rungs of ``kernels.ladder``, checked and timed: ``tinyseg bench ladder``.

All rungs are timed in turns within one run; the slow ones sit out most of the turns. Rates count the operations of
the textbook for every rung, so that twice the rate is half the time, also where a rung gets by with fewer operations.
The rungs of a ladder for GPUs are timed there, by the GPU's own events, with their arrays already in its memory.
"""

import json
import math
import time
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from benchmarks import entrants, peaks, plots, report
from benchmarks.box_operators import roi_align
from benchmarks.command import check_sizes, command_line, names
from benchmarks.convolutions import conv2d
from benchmarks.measure import SETTLE, TURN, Effort, Entrant, Spread, measure
from benchmarks.operator_case import Operator, normal, parts, text
from kernels import ladder
from kernels.cuda.device import why_not
from tinyseg import backend, files
from tinyseg.cli.common import number, whole_number

#: What each ladder is climbed with, by size: shape of x and output channels; shape of the maps, boxes, bins per side;
#: rows and columns of both matrices.
CONVOLUTIONS = {"S": ((1, 16, 64, 64), 16), "M": ((1, 64, 100, 152), 64), "L": ((1, 128, 100, 152), 128)}
REGIONS = {"S": ((1, 32, 25, 34), 16, 7), "M": ((1, 256, 50, 68), 100, 14), "L": ((1, 256, 50, 68), 512, 7)}
MATRICES = {"S": 512, "M": 2048, "L": 4096}
LIBRARIES = ("torch", "torchvision", "torch.cuda")
#: Turns that the slowest rung takes part in.
FEWEST = 3


class Step(NamedTuple):
    """One rung, or another library, as it was measured: seconds of the first call, and per call of each turn."""

    name: str
    change: str
    first: float
    seconds: list
    error: str | None

    @property
    def spread(self):
        """Median and quartiles of the seconds, or None where it was not timed."""
        return Spread.of(self.seconds) if self.seconds else None


class Climb(NamedTuple):
    """A ladder that was measured, on arrays of one size."""

    operator: str
    size: str
    arrays: str
    flops: int
    bytes: int
    peaks: dict  # of the processor or the GPU
    rungs: list
    others: list  # libraries

    @property
    def title(self):
        """Operator, size and arrays."""
        return f"{self.operator} {self.size}: {self.arrays}"

    @property
    def steps(self):
        """Return rungs and libraries."""
        return [*self.rungs, *self.others]


# ---- measuring -------------------------------------------------------------------------------------------------------


def operator_of(name, size):
    """Return the operator that a ladder is measured with."""
    if name == "matmul_cuda":
        return matmul(MATRICES[size])
    if name == "roi_align":
        return roi_align(*REGIONS[size])
    shape, outputs = CONVOLUTIONS[size]
    return conv2d(shape, (outputs, shape[1], 3, 3), padding=(1, 1))


def matmul(edge):
    """Return the operator of a product of two square matrices. The naive kernels have it as a linear layer."""
    ends = [0, -1]

    def forward(k, a, saved):
        if hasattr(k, "matmul_forward"):
            return k.matmul_forward(a.a, a.b)
        return k.linear_forward(a.a, np.ascontiguousarray(a.b.T))

    return Operator(
        "matmul",
        text(edge, edge) + "-" + text(edge, edge),
        lambda rng: {"a": normal(rng, edge, edge), "b": normal(rng, edge, edge) / np.float32(np.sqrt(edge))},
        {"forward": forward},
        theirs=lambda torch, t: t.a @ t.b,
        flops={"forward": 2 * edge**3},
        probe=lambda direction, a: ({"a": a.a[ends], "b": a.b[:, ends]}, [np.ix_(ends, ends)]),
        tolerance=1e-4,
    )


def climb(name, size, against, effort, limits):
    """Check and time the rungs of an operator's ladder.

    Parameters
    ----------
    name : str
        Of an operator that has a ladder.
    size : {"S", "M", "L"}
        How large the arrays are.
    against : sequence of str
        Libraries that take part, where the operator is theirs.
    effort : Effort
        Most turns, and seconds for all rungs together.
    limits : dict
        Peaks of what it runs on.

    Returns
    -------
    Climb
        A rung whose result is wrong has an error instead of times.
    """
    operator, on_gpu = operator_of(name, size), name in ladder.CUDA_OPERATORS
    changes = {rung.name: rung.change for rung in ladder.rungs(name)}
    entrant = _entrant_on_gpu if on_gpu else _entrant
    ready = {rung.name: entrant(rung, operator) for rung in ladder.rungs(name)}
    for library in operator.libraries("forward"):
        if library in against and entrants.on_gpu(library) == on_gpu:
            ready[library] = operator.entrant(library, "forward")
    prepared = {name: (lambda entrant=entrant: entrant) for name, entrant in ready.items()}
    checked, size_out = measure(prepared, operator.reference("forward"), operator.tolerance, Effort(0, 0))
    right = {name: ready[name] for name, timing in checked.items() if timing.error is None}
    seconds = in_turns(right, effort)
    steps = [Step(n, changes.get(n, ""), t.first, seconds.get(n, []), t.error) for n, t in checked.items()]
    cut = len(changes)
    work = operator.flops["forward"], operator.bytes_read("forward") + size_out
    return Climb(name, size, operator.arrays, *work, limits, steps[:cut], steps[cut:])


def _entrant(rung, operator):
    """Return the entrant of a rung: the operator calls it as it would call a backend."""
    module = _module(rung, operator)
    return Entrant(lambda: operator.calls["forward"](module, operator.inputs(), None), parts)


def _entrant_on_gpu(rung, operator):
    """Return the entrant of a rung for GPUs. Its inputs lie there beforehand, in several copies."""
    from benchmarks import gpu_clock
    from kernels.cuda import to_device, to_host

    module, calls = _module(rung, operator), []
    for _ in range(gpu_clock.copies(operator.bytes_read("forward"))):
        inputs = {name: to_device(array) for name, array in vars(operator.inputs()).items() if name != "dy"}
        calls.append(partial(operator.calls["forward"], module, SimpleNamespace(**inputs), None))
    call = gpu_clock.taken_in_turn(calls)
    return Entrant(call, lambda result: [to_host(part) for part in parts(result)], gpu_clock.Stopwatch(len(calls)))


def _module(rung, operator):
    """Return a rung as a module that has it under the operator's name."""

    def forward(*arrays, dilation=(1, 1), groups=1, **how):
        return rung.function(*arrays, **how)

    return SimpleNamespace(**{f"{operator.name}_forward": forward})


def in_turns(ready, effort):
    """Return the seconds per call of each turn, by name. Who is slow takes part in few turns, evenly spread."""
    calls = {name: entrant.call for name, entrant in ready.items()}
    clocks = {name: entrant.stopwatch.seconds if entrant.stopwatch else _seconds for name, entrant in ready.items()}
    plan = {}
    for name, call in calls.items():
        took = max(clocks[name](call, 1), 1e-7)  # the second call: nothing is left to compile
        often, settle = math.ceil(TURN / took), took < SETTLE
        share = effort.seconds / len(calls) / (took * (often + settle))
        plan[name] = often, settle, min(effort.turns, max(FEWEST, int(share)))
    seconds = {name: [] for name in calls}
    for turn in range(effort.turns):
        for name, (often, settle, turns) in plan.items():
            if turn * turns // effort.turns < (turn + 1) * turns // effort.turns:
                if settle:
                    calls[name]()
                seconds[name].append(clocks[name](calls[name], often))
    return seconds


def _seconds(call, often):
    """Return the mean seconds of so many calls in a row."""
    start = time.perf_counter()
    for _ in range(often):
        call()
    return (time.perf_counter() - start) / often


# ---- results ---------------------------------------------------------------------------------------------------------


def table(climbed):
    """Return a ladder as a Markdown table whose columns are aligned, to be read in a terminal too."""
    least, _ = peaks.bound(climbed.flops, climbed.bytes, climbed.peaks)
    rows = [["rung", "what it changes", "ms", "GFLOP/s", "GB/s", "of peak", "x before", "x first"]]
    first = before = None
    for number_, step in zip(count(1), climbed.steps, strict=False):
        name = f"{number_} {step.name}" if number_ <= len(climbed.rungs) else step.name
        if step.spread is None:
            rows.append([name, step.change, f"ERROR {step.error}", "", "", "", "", ""])
            continue
        median = step.spread.median
        first = first or median
        against = "" if before is None or step in climbed.others else f"{before / median:.2f}"
        rows.append([
            name, step.change, report.milliseconds(step.spread), f"{climbed.flops / median / 1e9:.3g}",
            f"{climbed.bytes / median / 1e9:.3g}", f"{least / median:.0%}", against, f"{first / median:.3g}",
        ])  # fmt: skip
        before = median
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(rows[0], widths), _line([":" + "-" * (w - 1) for w in widths[:2]] +
             ["-" * (w - 1) + ":" for w in widths[2:]], widths)]  # fmt: skip
    return "\n".join(lines + [_line(row, widths) for row in rows[1:]])


def _line(cells, widths):
    """Return a line of a table, words to the left and numbers to the right."""
    sides = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))]
    return f"| {' | '.join(sides)} |"


_LEGEND = """\
Times are milliseconds: the median of the turns, with its middle half (25 to 75 %); every result was checked against \
the textbook kernels before it was timed. Those of a GPU are its own, by its events. GFLOP/s counts the textbook's \
multiplications and additions, GB/s every number that must be read or written once. "Of peak" is the least time that \
either allows on this machine, by the time taken; Winograd convolution, which multiplies less, can exceed it. "x \
before" and "x first": how many times as fast as the rung before, and as the first."""


def markdown(climbs, machine):
    """Return a page with all ladders."""
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts_ = [
        "# Ladders",
        f"`{command_line()}`",
        about[0].upper() + about[1:] + ".",
        _LEGEND,
    ]
    for climbed in climbs:
        flops, size = climbed.peaks["flops"] / 1e9, climbed.peaks["bytes"] / 1e9
        limits = f"Peaks: {flops:.0f} GFLOP/s of multiply-adds, {size:.1f} GB/s of copying."
        parts_ += [f"## {climbed.title}", limits, table(climbed)]
    return "\n\n".join(parts_) + "\n"


def draw(climbs, machine):
    """Return the picture: a panel for each ladder, a bar for each rung, rates on a logarithmic scale."""
    from matplotlib.figure import Figure

    heights = [len(climbed.steps) + 2 for climbed in climbs]
    figure = Figure(figsize=(9, 0.8 + 0.34 * sum(heights)), dpi=110, layout="constrained")
    panels = figure.subplots(len(climbs), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for panel, climbed in zip(panels, climbs, strict=True):
        _draw_panel(panel, climbed)
    panels[-1].set_xlabel("GFLOP/s, counted in the textbook's operations (logarithmic)")
    figure.suptitle(plots.machine_line(machine), fontsize=9, color="#444444")
    return figure


def _draw_panel(panel, climbed):
    """Draw the bars of one ladder, its roof, and what each rung gained."""
    from matplotlib.ticker import FuncFormatter

    timed = [step for step in climbed.steps if step.spread]
    rates = [climbed.flops / step.spread.median / 1e9 for step in timed]
    colours = [plots.COLOURS[0] if step in climbed.rungs else plots.COLOURS[1] for step in timed]
    low, high = ([climbed.flops / s.spread[side] / 1e9 for s in timed] for side in (2, 0))
    # plain lists: of an array with one element Matplotlib below 3.11 asks for a number, which NumPy warns about
    errors = [np.subtract(rates, low).tolist(), np.subtract(high, rates).tolist()]
    panel.barh(range(len(timed)), rates, color=colours, height=0.7, xerr=errors, ecolor="#888888")
    roof = climbed.flops / peaks.bound(climbed.flops, climbed.bytes, climbed.peaks)[0] / 1e9
    panel.axvline(roof, color="black", lw=1, ls="--", zorder=0)
    left, right = min(rates, default=1) / 2, max([roof, *high])
    for i, (step, rate, end) in enumerate(zip(timed, rates, high, strict=True)):
        gain = f", {rate / rates[i - 1]:.2g} times" if i and step in climbed.rungs else ""
        panel.annotate(
            f"{rate:.3g}{gain}", (end, i), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    panel.set_xscale("log")
    panel.set_xlim(left, right * (right / left) ** 0.25)  # room for the last bar's words
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.set_yticks(range(len(timed)), [f"{s.name}: {s.change}" if s.change else s.name for s in timed], fontsize=8)
    panel.set_ylim(len(timed) - 0.4, -0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title(f"{climbed.title}   (dashed: bound of this machine, {roof:.3g})", loc="left", fontsize=9)


def leave(folder, climbs, machine):
    """Write ladder.json, ladder.md, ladder.png and ladder.svg."""
    data = {
        "machine": machine,
        "command": command_line(),
        "ladders": [{**c._asdict(), "rungs": _plain(c.rungs), "others": _plain(c.others)} for c in climbs],
    }
    files.write_text(folder / "ladder.json", json.dumps(data, indent=1) + "\n")
    files.write_text(folder / "ladder.md", markdown(climbs, machine))
    plots.save(folder, "ladder", draw(climbs, machine))


def _plain(steps):
    """Return steps as dictionaries for JSON, which knows no NaN."""
    return [{**step._asdict(), "first": None if math.isnan(step.first) else step.first} for step in steps]


# ---- the command -----------------------------------------------------------------------------------------------------


def add_arguments(parser):
    """Add the options of ``tinyseg bench ladder``."""
    parser.epilog = "The rungs are functions in kernels/ladder: read them in order, each says what it changes and why."
    default, on_gpu = ", ".join(ladder.OPERATORS), ", ".join(ladder.CUDA_OPERATORS)
    known = f"{default} (these by default); on a GPU: {on_gpu}"
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help=known)
    parser.add_argument("--sizes", type=names, default=("M",), metavar="S,M,L", help="of S, M, L (default: M)")
    parser.add_argument(
        "--against",
        type=names,
        default=(),
        metavar="NAMES",
        help="another library beside the rungs: torch (conv2d), torchvision (roi_align), torch.cuda (on a GPU)",
    )
    parser.add_argument(
        "--turns", type=whole_number(FEWEST), default=25, metavar="N", help="times in turn, at most (default: 25)"
    )
    parser.add_argument(
        "--seconds", type=number(0), default=15.0, metavar="S", help="for each ladder, about (default: 15)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads for all (default: all)")
    parser.add_argument("--out", default="speed", metavar="FOLDER", help="folder for the results (default: speed)")
    parser.add_argument("--debug", action="store_true", help="show Python's traceback when something fails")


def run(args):
    """Measure the ladders, print a table of each, leave the results; return 1 if a rung was wrong, otherwise 0."""
    operators, libraries = _check(args)
    folder = files.make_folder(args.out)
    entrants.share_threads(libraries)
    places = dict.fromkeys("cuda" if name in ladder.CUDA_OPERATORS else "cpu" for name in operators)
    limits = {place: _peaks(place) for place in places}
    machine = entrants.machine([*places, *libraries])
    climbs, stopped = [], False
    try:
        for name in operators:
            of_place = limits["cuda" if name in ladder.CUDA_OPERATORS else "cpu"]
            for size in args.sizes:
                climbs.append(climb(name, size, libraries, Effort(args.turns, args.seconds), of_place))
                print(f"\n{climbs[-1].title}\n\n{table(climbs[-1])}", flush=True)
    except KeyboardInterrupt:
        stopped = True
    if climbs:
        leave(folder, climbs, machine)
    print(f"\n{len(climbs)} ladders saved in {folder}" + (", which is all until you stopped" if stopped else ""))
    return 130 if stopped else int(any(step.error for climbed in climbs for step in climbed.steps))


def _peaks(place):
    """Return the peaks of the processor, ``"cpu"``, or of the GPU."""
    if place == "cpu":
        return peaks.peaks(backend.get_num_threads())
    from benchmarks import gpu_peaks

    return gpu_peaks.peaks()


def _check(args):
    """Return the operators to measure and the libraries that are there; raise ValueError where something is not."""
    known = ladder.OPERATORS + ladder.CUDA_OPERATORS
    for name in args.operators:
        if name not in known:
            raise ValueError(f"there is no ladder of {name!r}; expected some of {', '.join(known)}")
        if name in ladder.CUDA_OPERATORS and (reason := why_not()):
            raise ValueError(f"the ladder of {name!r} needs a GPU to be timed on: {reason}")
    check_sizes(args.sizes)
    for name in args.against:
        if name not in LIBRARIES:
            raise ValueError(f"--against has {name!r}; expected some of {', '.join(LIBRARIES)}")
    absent = {name: why for name in args.against if (why := entrants.why_absent(name))}
    for name, why in absent.items():
        print(f"not measured: {name}, because {why}")
    return args.operators or ladder.OPERATORS, [name for name in args.against if name not in absent]
