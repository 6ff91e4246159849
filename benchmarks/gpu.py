"""``tinyseg bench gpu``: all that there is to find out on a machine with a GPU, in one command.

First the tests of the kernels, there; then compute-sanitizer, where it is installed; then the benchmark: the peaks of
the GPU, and per operator and network the time of the GPU itself, that of the call from Python, transfers, compilation
and the kernels one by one, beside the processor and PyTorch on the same GPU. What was found is in the folder after
every step, and the same command again goes on where it ended.

In the simulator the same steps run over tiny arrays: simulated, times mean nothing, and no file bears a GPU's name.
"""

import argparse
import hashlib
import math
import os
import re
import time
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import cases, entrants, gpu_checks, measure, results, running
from benchmarks.command import command_line, names
from benchmarks.measure import Timing
from tinyseg import files
from tinyseg.cli.common import number, whole_number

#: Steps that measure the GPU, and no operator.
_OF_THE_GPU = ("peaks", "overlap")
#: Of the machine, what may differ between two runs that make one table.
_MAY_DIFFER = ("date",)
_EXAMPLE = """\
examples:
  python -m benchmarks gpu                          everything; again: what was left
  python -m benchmarks gpu --only tests sanitizer   no times
  python -m benchmarks gpu --only roi_ nms          some operators"""


def add_arguments(parser):
    """Add the options of ``tinyseg bench gpu``."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLE
    same = argparse.SUPPRESS  # as given before the word "gpu", or its default there
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="steps whose name holds one of these, where * stands for anything: tests, sanitizer, peaks, overlap, "
        "operators, models, 'roi_*/forward', ... (default: all)",
    )
    parser.add_argument("--list", action="store_true", default=same, help="only show the names of the steps")
    parser.add_argument("--sizes", type=names, default=("M", "L"), metavar="S,M,L", help="of S, M, L (default: M,L)")
    parser.add_argument(
        "--backends",
        type=names,
        default=("cuda", "cpu"),
        metavar="NAMES",
        help="kernels of tinyseg, cuda first (default: cuda,cpu)",
    )
    parser.add_argument(
        "--against",
        type=names,
        default=("torch.cuda", "torchvision.cuda"),
        metavar="NAMES",
        help="other libraries, where installed (default: torch.cuda,torchvision.cuda)",
    )
    parser.add_argument(
        "--minutes",
        type=number(0),
        default=8.0,
        metavar="M",
        help="start nothing after so long, in the benchmark and in each check; the rest is left for another run "
        "(default: 8)",
    )
    parser.add_argument("--turns", type=whole_number(1), default=9, metavar="N", help="times in turn (default: 9)")
    parser.add_argument(
        "--seconds", type=number(0), default=1.0, metavar="S", help="stop a row after so long, and three turns"
    )
    parser.add_argument("--again", action="store_true", help="measure anew what the folder already has")
    parser.add_argument("--threads", type=int, default=same, metavar="N", help="processor threads (default: all)")
    parser.add_argument("--out", default="gpu", metavar="DIR", help="folder for the results (default: gpu)")
    parser.add_argument("--debug", action="store_true", default=same, help="show Python's traceback on failure")


def run(args):
    """Take the steps that the options name; return 0 where all was right, 1 where not, 130 where it was stopped."""
    from benchmarks.command import check_sizes

    require()
    check_sizes(args.sizes)
    steps = chosen(args.only, args.sizes)
    if args.list:
        print("\n".join(steps))
        return 0
    if args.backends[:1] != ("cuda",):
        raise ValueError(f"--backends is {','.join(args.backends)!r}; expected cuda first")
    return _Session(args, steps).run()


def require():
    """Check that kernels can run on a GPU or in the simulator.

    Raises
    ------
    ValueError
        If not: one sentence that says what to do.
    """
    os.environ.setdefault("CUDA_CACHE_DISABLE", "1")  # the driver's: a compilation is one, every time
    try:
        from kernels import cuda

        cuda.require()
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    except (ImportError, AttributeError) as error:
        import numpy as np

        what = " ".join(str(error).split())
        newer = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 5)
        advice = "install a NumPy below 2.5" if newer else "install 'tinyseg[cuda]'"
        raise ValueError(f"numba.cuda does not load with NumPy {np.__version__} ({what}): {advice}") from None


# ---- steps -----------------------------------------------------------------------------------------------------------


def every(sizes):
    """Return all steps by name, in the order in which they are taken: checks, the GPU, and cases, goals first."""
    from benchmarks import gpu_report

    found = sorted(_cases(sizes), key=lambda case: gpu_report.place_of_goal(case.name))
    return {**dict.fromkeys([*gpu_checks.names(), *_OF_THE_GPU]), **{case.name: case for case in found}}


def chosen(patterns, sizes):
    """Return the steps whose names hold one of some patterns, all without any, by name.

    Raises
    ------
    ValueError
        If a pattern chooses nothing.
    """
    steps = every(sizes)
    for pattern in patterns:
        if not any(fnmatchcase(name, f"*{pattern}*") for name in steps):
            raise ValueError(f"--only: {pattern!r} chooses none of {len(steps)} steps; --list shows them")
    kept = {name for name in steps if not patterns or any(fnmatchcase(name, f"*{p}*") for p in patterns)}
    return {name: case for name, case in steps.items() if name in kept}


def _cases(sizes):
    """Return what is measured: in the simulator what it can bear, with each kind of step among it."""
    return tiny() if _simulated() else [case for case in cases.every() if case.size in sizes]


def tiny():
    """Return cases with tiny arrays."""
    from benchmarks import operators as op
    from benchmarks.box_operators import nms, roi_align, roi_pool
    from benchmarks.convolutions import conv2d
    from benchmarks.models import UNetRun

    operators = [
        roi_align((1, 2, 5, 6), 2, 2),
        roi_pool((1, 2, 5, 6), 2, 2),
        nms(6),
        conv2d((1, 2, 4, 5), (2, 2, 3, 3), padding=(1, 1)),
        op.relu(1, 2, 3, 4),
    ]
    subjects = [*(("operators", subject) for subject in operators), ("models", UNetRun("unet_tiny"))]
    return [cases.Case(kind, "S", subject, way) for kind, subject in subjects for way in subject.directions]


def _simulated():
    from kernels.cuda.device import SIMULATED

    return SIMULATED


class _Session:
    """One run of the command.

    Attributes
    ----------
    found : results.Run
        All that is known; ``gpu`` holds ``simulated``, the ``code`` that was measured, and by name: ``checks``,
        ``transfers``, ``kernels`` (seconds of each within a call), ``compiling`` (seconds of a first start),
        ``in_cache`` (whether a case's arrays were), ``begun`` (steps that did not end) and ``left`` (those that no
        time was left for).
    """

    def __init__(self, args, steps):
        self.steps, self.minutes = steps, args.minutes
        self.effort = measure.Effort(args.turns, args.seconds)
        self.names, absent = entrants.chosen((*args.backends, "cuda.atomic"), args.against)
        entrants.share_threads(self.names)
        self.folder = files.make_folder(args.out)
        machine = entrants.machine(self.names)
        self.slug = re.sub(r"[^a-z0-9]+", "-", machine["gpu"].lower()).strip("-")
        self.path = self.folder / f"{self.slug}.json"
        self.found = results.Run(command_line(), machine, {}, [], absent, gpu=_empty())
        if self.path.exists() and not args.again:
            self._go_on(results.read(self.path))

    def _go_on(self, before):
        """Keep what an earlier run found, if it was of the same machine and code."""
        old, new = dict(before.machine), dict(self.found.machine)
        old["code"], new["code"] = before.gpu.get("code"), self.found.gpu["code"]
        if old["code"] is None:
            raise ValueError(f"{self.path} holds no results of a GPU: choose another --out")
        differ = [key for key in {**old, **new} if old.get(key) != new.get(key) and key not in _MAY_DIFFER]
        if differ:
            key = differ[0]
            what = f"{key} {old.get(key, 'absent')}, where this is {new.get(key, 'absent')}"
            raise ValueError(f"{self.path} was measured with {what}: choose another --out, or --again to replace it")
        self.found.rows, self.found.peaks, self.found.gpu = before.rows, before.peaks, before.gpu

    def run(self):
        """Take all steps; return the exit code."""
        from benchmarks import gpu_clock

        for name, why in self.found.absent.items():
            print(f"not measured: {name}, because {why}")
        checks = [name for name in self.steps if name in gpu_checks.names() and not self._is_done(name)]
        timed = [name for name in self.steps if name not in gpu_checks.names()]
        if timed and not self.found.peaks and "peaks" not in timed:
            timed.insert(0, "peaks")
        self.found.gpu["left"] = []
        try:
            for name in checks:
                self._check(name)
            if not _simulated():
                gpu_clock.hold(0)  # the compiler's own start is none of the first kernel's
            with gpu_clock.noting_compilations(self.found.gpu["compiling"]):
                self._benchmark([name for name in timed if not self._is_done(name)])
        except KeyboardInterrupt:
            self.found.complete = False
        self.found.gpu["begun"] = {}
        return self._leave()

    def _is_done(self, name):
        """Return whether an earlier run has taken a step; a check that could not be run is none."""
        if name in gpu_checks.names():
            return self.found.gpu["checks"].get(name, ["not run"])[0] != "not run"
        if name in _OF_THE_GPU:
            return bool(self.found.peaks if name == "peaks" else self.found.gpu.get(name))
        return any(row.name == name for row in self.found.rows)

    def _save(self):
        results.write(self.path, self.found)

    def _check(self, name):
        """Run the tests or the sanitizer."""
        print(f"{name} (at most {self.minutes:g} minutes)", flush=True)
        outcome, output = gpu_checks.check(name, self.minutes)
        self.found.gpu["checks"][name] = list(outcome)
        if output:
            files.write_text(self.folder / f"{self.slug}-{name.replace('/', '-')}.txt", output)
        print(f"{name}: {outcome.outcome}, {outcome.words}")
        self._save()

    def _benchmark(self, todo):
        """Take the steps that measure, as long as there is time."""
        end = time.monotonic() + 60 * self.minutes
        for number_of, name in enumerate(progress(todo)):
            if time.monotonic() > end and number_of:
                self.found.gpu["left"] = todo[number_of:]
                return
            begun = self.found.gpu["begun"]
            begun[name] = begun.get(name, 0) + 1
            self._save()  # even if the process ends in this step: see _measure
            if name == "peaks":
                self.found.peaks = running.limits_of("cuda", None)
            elif name == "overlap":
                self._overlap(ended_before=begun[name] > 2)
            else:
                self._measure(self.steps[name], ended_before=begun[name] > 2)
            del begun[name]
            self._save()

    def _overlap(self, ended_before):
        """Measure copies beside kernels, and print the line."""
        from benchmarks import gpu_report, gpu_transfers

        try:
            if ended_before:
                raise RuntimeError("the process ended in this step, twice")
            self.found.gpu["overlap"] = gpu_transfers.overlap()
        except Exception as error:  # as in _measure
            self.found.gpu["overlap"] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            self._check_alive("overlap")
        _print(gpu_report.overlap_line(self.found.gpu["overlap"]))

    def _measure(self, case, ended_before):
        """Measure a case, and print its line."""
        from benchmarks import gpu_report

        if ended_before:
            row = _failed(case, "the process ended in this step, twice")
        else:
            try:
                row = self._row(case)
            except Exception as error:  # a library's, or the GPU's: it is told in the table
                row = _failed(case, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        self.found.rows.append(row)
        _print(gpu_report.line(row, self.found))
        if row.timings["cuda"].error:
            self._check_alive(case.name)

    def _row(self, case):
        """Return the row of a case; transfers and kernels one by one go to `found`."""
        from benchmarks import gpu_clock, gpu_transfers

        row = running.measured(case, self.names, self.effort)
        if row.timings["cuda"].error:
            return row
        about = self.found.gpu
        if case.kind == "operators":
            read = case.subject.bytes_read(case.direction)
            about["in_cache"][case.name] = gpu_clock.in_cache(read)
            if hasattr(case.subject, "arrays_read"):
                arrays = case.subject.arrays_read(case.direction)
                about["transfers"][case.name] = gpu_transfers.transfers(arrays, row.bytes - read)
        entrant = case.subject.entrant("cuda", case.direction)
        entrant.call()
        about["kernels"][case.name] = gpu_clock.by_kernel(entrant.call)
        return row

    def _check_alive(self, name):
        """Raise where the GPU does nothing any more in this process."""
        from kernels.cuda.device import synchronize

        try:
            synchronize()
        except Exception as error:
            del self.found.gpu["begun"][name]
            self._save()
            raise ValueError(
                f"the GPU stopped working in {name} ({' '.join(str(error).split())}): the same command again goes on"
            ) from None

    def _leave(self):
        """Write all that is known, print the table, and return the exit code."""
        from benchmarks import gpu_report

        self._save()
        files.write_text(self.folder / f"{self.slug}.md", gpu_report.markdown(self.found))
        print(gpu_report.short(self.found))
        left = len(self.found.gpu["left"])
        if left:
            print(f"{left} steps are left, as {self.minutes:g} minutes are over: the same command again goes on")
        print(f"saved in {self.path} and {self.slug}.md" + ("" if self.found.complete else ": all until you stopped"))
        if not self.found.complete:
            return 130
        failed = any(outcome == "FAILED" for outcome, *_ in self.found.gpu["checks"].values())
        return int(failed or bool(self.found.errors()) or "error" in self.found.gpu["overlap"])


def _failed(case, why):
    """Return the row of a case that could not be measured."""
    return results.Row(case.name, None, 0, case.subject.checked, {"cuda": Timing(math.nan, [], why)})


def _empty():
    """Return what `results.Run.gpu` is at first."""
    tables: dict = {
        name: {} for name in ("checks", "overlap", "transfers", "kernels", "compiling", "in_cache", "begun")
    }
    return {"simulated": _simulated(), "code": code(), **tables, "left": []}


def code():
    """Return a word that tells one state of the project's code from another."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for package in ("benchmarks", "kernels", "tinyseg"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def progress(steps):
    """Yield names of steps, with a bar that shows the one being taken, or lines where tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        for i, name in enumerate(steps, 1):
            print(f"[{i}/{len(steps)}] {name}", flush=True)
            yield name
        return
    with tqdm(steps, unit="step", leave=False, disable=None) as bar:
        for name in bar:
            bar.set_postfix_str(name[:60])
            yield name


def _print(line):
    """Print a line, above the bar where there is one."""
    try:
        running._print(line)
    except ImportError:
        print(line, flush=True)
