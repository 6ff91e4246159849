"""What a run on a GPU found, as text: a line per case, verdicts on the goals, and a page in Markdown."""

import math
from fnmatch import fnmatchcase
from typing import NamedTuple

from benchmarks import report
from benchmarks.measure import Spread, ratio

#: Our kernels, in both forms.
_OURS = ("cuda", "cuda.atomic")
#: Names of the GPUs that the goals were set for.
_MEANT_FOR = ("H100", "H200")
SIMULATED = "SIMULATED: no GPU took part, and times mean nothing."


class Goal(NamedTuple):
    """How many times our time another library shall take.

    Attributes
    ----------
    words : str
        What it is about.
    pattern : str
        Of the names of cases: each of them has a verdict.
    other : str
        Who is compared with.
    times : float
        The other's time by ours, at least.
    called : bool
        Whether the times of calls count, launches included, and not those of the GPU alone.
    together : bool
        Whether what counts is the sum over all layers of Mask R-CNN, each as often as the network has it.
    """

    words: str
    pattern: str
    other: str
    times: float
    called: bool = False
    together: bool = False


_CONVOLUTIONS = "operators/conv2d/L/maskrcnn:1x*/"
GOALS = (
    Goal("RoIAlign forward", "operators/roi_align/L/*/forward", "torchvision.cuda", 1.5),
    Goal("RoIAlign backward", "operators/roi_align/L/*/backward", "torchvision.cuda", 1.5),
    Goal("RoIPool forward", "operators/roi_pool/L/*/forward", "torchvision.cuda", 1.5),
    Goal("RoIPool backward", "operators/roi_pool/L/*/backward", "torchvision.cuda", 1.5),
    Goal("NMS", "operators/nms/L/*/forward", "torchvision.cuda", 1.0),
    Goal("U-Net of the article, inference", "models/unet/M/*/inference", "torch.cuda", 1.0, called=True),
    Goal("U-Net of the article, training step", "models/unet/M/*/training_step", "torch.cuda", 1.0, called=True),
    *(
        Goal(f"convolution, ResNet-50-FPN, {words}", f"{_CONVOLUTIONS}{way}", "torch.cuda", 0.7, together=True)
        for words, way in (
            ("forward", "forward"),
            ("gradient of the input", "input_gradient"),
            ("gradient of the weights", "weight_gradient"),
        )
    ),
)


def goal_of(name):
    """Return the goal that a case has, or None."""
    return next((goal for goal in GOALS if fnmatchcase(name, goal.pattern)), None)


def place_of_goal(name):
    """Return a number to sort cases by: those with goals first, in the order of the goals."""
    goal = goal_of(name)
    return GOALS.index(goal) if goal else len(GOALS)


def times(row, other, entrant="cuda", called=False):
    """Return how many times an entrant's time another took, a `measure.Spread`, or None where one has no time."""
    ours, theirs = (row.timings.get(name) for name in (entrant, other))
    if ours is None or theirs is None:
        return None
    if called:
        return ratio(ours.called, theirs.called) if ours.called and theirs.called else None
    return ratio(ours.seconds, theirs.seconds) if ours.seconds and theirs.seconds else None


def others(row):
    """Return the other libraries' names in a row, those on the GPU first."""
    return sorted((name for name in row.timings if name not in _OURS), key=lambda name: not name.endswith(".cuda"))


# ---- verdicts --------------------------------------------------------------------------------------------------------


def verdict(row, run, entrant="cuda"):
    """Return what a row's ratio means for its goal, in words; nothing where it has none."""
    goal = goal_of(row.name)
    if goal is None or run.gpu["simulated"]:
        return ""
    found = times(row, goal.other, entrant, goal.called)
    return _judged(goal, found and found.median, run)


def _judged(goal, reached, run):
    """Return the verdict on a ratio."""
    if not any(name in run.machine["gpu"] for name in _MEANT_FOR):
        return f"goal {goal.times:g} is for an H100 or H200"
    if reached is None:
        return f"goal {goal.times:g}: NOT MEASURED"
    return f"goal {goal.times:g}: {'met' if reached >= goal.times else 'MISSED'}"


def verdicts(run):
    """Return a line for each goal and each case that it is about; also for those that were not measured."""
    if run.gpu["simulated"]:
        return []
    lines = []
    for goal in GOALS:
        rows = [row for row in run.rows if goal_of(row.name) is goal]
        if goal.together:
            lines.append(_together(goal, rows, run))
            continue
        for row in rows:
            for entrant in _OURS:
                if entrant == "cuda" or entrant in row.timings:
                    found = times(row, goal.other, entrant, goal.called)
                    measured = report.times_text(found) if found else "-"
                    which = " (atomic sums)" if entrant != "cuda" else ""
                    arrays = row.parts[3]
                    lines.append(f"{goal.words}{which}, {arrays}: {measured} times, {verdict(row, run, entrant)}")
        if not rows:
            lines.append(f"{goal.words}: {_judged(goal, None, run)}")
    return lines


def _together(goal, rows, run):
    """Return the line on the sum of the times of all layers, each as often as the network has it."""
    from benchmarks import cases, layers

    counts: dict = {}
    for layer in layers.stored()["maskrcnn"]:
        arrays = layers.operator(layer, "maskrcnn:").arrays
        counts[arrays] = counts.get(arrays, 0) + layer["count"]
    wanted = [case.name for case in cases.every() if fnmatchcase(case.name, goal.pattern)]
    both = [row for row in rows if times(row, goal.other)]
    if len(both) < len(wanted):
        return f"{goal.words}: {len(both)} of {len(wanted)} layers measured, {_judged(goal, None, run)}"
    ours, theirs = (
        sum(counts[row.parts[3]] * row.spread(name).median for row in both) for name in ("cuda", goal.other)
    )
    reached = theirs / ours
    return (
        f"{goal.words}: {reached:.2f} times, all {len(wanted)} layers together "
        f"({ours * 1e3:.3g} by {theirs * 1e3:.3g} ms), {_judged(goal, reached, run)}"
    )


# ---- a line, the terminal --------------------------------------------------------------------------------------------


def line(row, run):
    """Return a row as one line for the terminal."""
    words = []
    for entrant in _OURS:
        spread = row.spread(entrant)
        if spread:
            words.append(f"{entrant} {report.milliseconds(spread)} ms{_notes(row, entrant, run)}")
            words += [f"{value} {unit}" for value, unit in zip(_rates(row, entrant, run), _UNITS, strict=True) if value]
            for other in others(row):
                found = times(row, other, entrant)
                if found:
                    words.append(f"{other} {report.times_text(found)} times")
            words += [text] if (text := verdict(row, run, entrant)) else []
    words += [f"{name}: ERROR {timing.error}" for name, timing in row.timings.items() if timing.error]
    return f"{row.name}  " + "  ".join(words)


def short(run):
    """Return what the terminal shows at the end: the table, verdicts, and what was not right or not measured."""
    copies = overlap_line(run.gpu["overlap"]) if run.gpu["overlap"] else ""
    parts = [_tables(run), copies, "\n".join(verdicts(run)), "\n".join(_problems(run))]
    return "\n\n".join(part for part in ([SIMULATED] if run.gpu["simulated"] else []) + parts if part)


_UNITS = ("GFLOP/s", "GB/s", "of peak")


def _rates(row, entrant, run):
    """Return GFLOP/s, GB/s and the share of the peak as text, empty where there is none."""
    if not run.peaks or not row.spread(entrant):
        return ["", "", ""]
    flops, size, share = report.rates(row, entrant, run.peaks)
    return [f"{flops:.4g}" if flops else "", f"{size:.4g}" if size else "", f"{share:.0%}" if share else ""]


def _notes(row, entrant, run):
    """Return what has to be known about a time."""
    notes = ["waits for the GPU"] if row.timings[entrant].waits else []
    notes += ["arrays in the cache"] if run.gpu["in_cache"].get(row.name) else []
    return f" ({', '.join(notes)})" if notes else ""


def _problems(run):
    """Return lines on checks, who was absent, errors, and what is left."""
    lines = [f"{name}: {outcome}, {words}" for name, (outcome, words, _) in run.gpu["checks"].items()]
    lines += [f"NOT MEASURED {name}: {why}" for name, why in run.absent.items()]
    lines += [f"ERROR {row.name}, {name}: {error}" for row, name, error in run.errors()]
    if run.gpu["left"]:
        lines.append(f"left for another run, {len(run.gpu['left'])} steps: {', '.join(run.gpu['left'][:5])}, ...")
    if not run.complete:
        lines.append("stopped before the end: the rows are those measured until then")
    return lines


# ---- Markdown --------------------------------------------------------------------------------------------------------

_LEGEND = """\
Times are milliseconds, medians of the turns with their middle half (25 to 75 %). "ms" is the time of the GPU by its \
events, launches lined up beforehand, over arrays that are taken from several copies in turn, so that none is in the \
GPU's cache; where they all find room there, the row says so. Networks run on one picture or batch. A call that \
"waits for the GPU" cannot be lined up: its time has the host's part in it. "Called ms" is the time of a call from \
Python by the processor's clock, launches included, when many follow each other; networks are judged by it. \
"PyTorch ms" is PyTorch's or torchvision's time on the same GPU, in float32 with TF32 off and cudnn.benchmark on, \
measured in the same way; "times" is that by ours, turn by turn. Results were checked before any was timed. GFLOP/s \
counts the multiplications and additions of the textbook, GB/s every number that must be read or written once; "of \
peak" is the least time that either allows on this GPU, by the time taken. "cpu ms" is this machine's processor. \
"(atomic)" is the gradient with atomic sums, which may differ in its last digits from run to run."""


def markdown(run):
    """Return a page with all that is known."""
    gpu = run.gpu
    title = "Simulated: times mean nothing" if gpu["simulated"] else run.machine["gpu"]
    parts = [f"# {title}", SIMULATED if gpu["simulated"] else "", f"`{run.command}`"]
    parts.append(", ".join(f"{key} {value}" for key, value in run.machine.items()) + f", code {gpu['code']}.")
    if run.peaks:
        parts.append(
            f"Peaks measured here: {run.peaks['flops'] / 1e9:,.0f} GFLOP/s of multiply-adds in registers, "
            f"{run.peaks['bytes'] / 1e9:,.0f} GB/s read and written by copying."
        )
    found = [*verdicts(run), *_problems(run)]
    parts += ["## Verdicts, checks and errors", "\n".join(f"- {text}" for text in found)] if found else []
    if run.rows:
        parts += ["## Times", _LEGEND, _tables(run)]
    if gpu["overlap"]:
        parts += ["## Copies beside kernels", _OVERLAP, overlap_line(gpu["overlap"]) + "."]
    if gpu["transfers"]:
        parts += ["## Transfers", _TRANSFERS, report.table(_transfers(gpu["transfers"]))]
    if gpu["kernels"]:
        parts += ["## Kernels one by one", _KERNELS, report.table(_kernels(gpu["kernels"]))]
    if gpu["compiling"]:
        total = sum(gpu["compiling"].values())
        parts += ["## Compiling", f"Seconds of a first start, with nothing cached: {total:.1f} together."]
        parts.append(report.table(_compiling(gpu["compiling"])))
    return "\n\n".join(part for part in parts if part) + "\n"


_TRANSFERS = """\
Milliseconds of copying what an operator reads to the GPU, and its result back: from and to the host's ordinary \
memory, as `to_device` and `to_host` do, and pinned memory. No time above has them in it."""
_KERNELS = """\
Microseconds on the GPU of each kernel within one call, with events around every launch, which add one or two."""


_OVERLAP = """\
Batches that come from the host one after another and are computed on the GPU: sent in line, which the host and the \
kernels wait for, and sent beside the kernels, from pinned memory, while the batch before is computed. By the \
processor's clock."""


def overlap_line(found):
    """Return what sending batches beside the kernels saves, as one line for the terminal and the page."""
    if "error" in found:
        return f"overlap: ERROR {found['error']}"
    ms = {name: found[name] * 1e3 for name in ("computed", "sent", "waited", "hidden")}
    share = (ms["waited"] - ms["hidden"]) / ms["sent"] if ms["sent"] else 0.0
    text = {name: report.digits(value) for name, value in ms.items()}
    return (
        f"overlap: a batch of {report.digits(found['bytes'] / 1e6)} MB takes {text['sent']} ms to send and "
        f"{text['computed']} ms to compute, {text['waited']} ms when it is waited for and {text['hidden']} ms beside "
        f"the kernels: {share:.0%} of sending is hidden"
    )


def _tables(run):
    """Return the table of all times."""
    if not run.rows:
        return ""
    rows = [_cells(row, entrant, run) for row in run.rows for entrant in _OURS if entrant in row.timings]
    return report.table(report.without_empty_columns([_HEAD, *rows]))


_HEAD = [
    *("case", "ms", "GFLOP/s", "GB/s", "of peak", "called ms", "PyTorch ms", "PyTorch called ms", "times"),
    *("times called", "goal", "cpu ms", "cpu times", "notes", "checked"),
]  # fmt: skip


def _cells(row, entrant, run):
    """Return the cells of one entrant of a row."""
    timing, theirs = row.timings[entrant], next((name for name in others(row) if name.endswith(".cuda")), None)
    name = "/".join(row.parts[1:]) + (" (atomic)" if entrant != "cuda" else "")
    spread = row.spread(entrant)
    cells = [name, "ERROR" if timing.error else report.milliseconds(spread) if spread else ""]
    cells += _rates(row, entrant, run) + [_median(timing.called)]
    other = row.timings.get(theirs)
    cells += ["ERROR" if other and other.error else _median(other and other.seconds), _median(other and other.called)]
    for called in (False, True):
        found = times(row, theirs, entrant, called)
        cells.append(report.times_text(found) if found else "")
    cpu, by_cpu = row.timings.get("cpu"), times(row, "cpu", entrant)
    cells += [verdict(row, run, entrant), "ERROR" if cpu and cpu.error else _median(cpu and cpu.seconds)]
    cells += [report.digits(by_cpu.median) if by_cpu else "", _notes(row, entrant, run).strip(" ()"), row.checked]
    return cells


def _median(seconds):
    """Return the median of seconds as milliseconds, nothing where there are none."""
    if not seconds:
        return ""
    return report.digits(Spread.of(seconds).median * 1e3)


def _transfers(found):
    """Return the cells of the table of transfers."""
    rows = [["case", "to, MB", "ms", "pinned ms", "pinned GB/s", "back, MB", "back ms", "back pinned ms"]]
    for name, about in found.items():
        seconds = {key: report.digits(value * 1e3) for key, value in about["seconds"].items()}
        rate = about["to_device"] / about["seconds"]["to_device_pinned"] / 1e9
        there = [report.digits(about["to_device"] / 1e6), seconds["to_device"], seconds["to_device_pinned"]]
        back = [report.digits(about["to_host"] / 1e6), seconds["to_host"], seconds["to_host_pinned"]]
        rows.append([name.partition("/")[2], *there, report.digits(rate), *back])
    return rows


def _kernels(found):
    """Return the cells of the table of kernels within calls."""
    rows = [["case", "together", "kernels"]]
    for name, seconds in found.items():
        by_time = sorted(seconds.items(), key=lambda item: -item[1])
        text = ", ".join(f"{kernel} {report.digits(value * 1e6)}" for kernel, value in by_time)
        rows.append([name.partition("/")[2], report.digits(math.fsum(seconds.values()) * 1e6), text])
    return rows


def _compiling(found):
    """Return the cells of the table of compilations, longest first."""
    return [["kernel", "s"], *([name, report.digits(s)] for name, s in sorted(found.items(), key=lambda i: -i[1]))]
