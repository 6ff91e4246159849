"""The command line: what ``tinyseg bench`` and ``python -m benchmarks`` have in common, which is everything."""

import contextlib
import os
import shlex
import sys
import tempfile

from benchmarks import SIZES
from tinyseg.cli.common import number, whole_number

DESCRIPTION = """\
Measure how fast tinyseg is on this machine: each operator, forward and backward, and whole networks, on small
arrays (S), those of the article's U-Net (M), and those of a wide U-Net and a Mask R-CNN (L). Every result is
checked before it is timed; all who take part are timed in turns. Leaves results.json, results.md and pictures.

  tinyseg bench gpu       on a machine with a GPU: tests, then our CUDA kernels beside PyTorch's, in one table
  tinyseg bench scaling   how the cost grows with pixels, channels and boxes
  tinyseg bench ladder    one operator in rising versions, from the textbook to the final one"""

EXAMPLE = """\
  tinyseg bench --against torch,torchvision --out speed
  tinyseg bench --only models --sizes S,M --against torch,torch.compile,onnxruntime
  tinyseg bench --only 'conv2d*maskrcnn*forward' --sizes L --against torch
  tinyseg bench --only roi_align nms --sizes L --compare old/results.json
  tinyseg bench --compare old/results.json new/results.json"""


def add_arguments(parser, fill_when_used):
    """Add the options and the subcommands.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of ``tinyseg bench``.
    fill_when_used : callable
        ``fill_when_used(parser, fill)`` calls ``fill(parser)`` when the parser is first used.
    """
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="cases whose name holds one of these, where * stands for anything: operators, models, conv2d, "
        "'roi_*/forward', ... (default: all)",
    )
    what.add_argument(
        "--sizes", type=names, default=("M",), metavar="S,M,L", help=f"of {', '.join(SIZES)} (default: M)"
    )
    what.add_argument("--list", action="store_true", help="only show the names of the cases")
    who = parser.add_argument_group("who takes part")
    who.add_argument(
        "--backends",
        type=names,
        default=("cpu", "naive"),
        metavar="NAMES",
        help="kernels of tinyseg: cpu, naive, cuda, cuda.atomic (gradients of RoIs by atomic sums); the first is "
        "compared with all others, naive runs size S alone (default: cpu,naive)",
    )
    who.add_argument(
        "--against",
        type=names,
        default=(),
        metavar="NAMES",
        help="other libraries, where installed: torch, torchvision, torch.compile, onnxruntime; on the GPU torch.cuda, "
        "torchvision.cuda",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--turns", type=whole_number(1), default=15, metavar="N", help="times in turn (default: 15)")
    how.add_argument(
        "--seconds",
        type=number(0),
        default=10.0,
        metavar="S",
        help="stop a row after so long, and three turns (default: 10)",
    )
    how.add_argument("--threads", type=int, metavar="N", help="processor threads for all (default: all)")
    how.add_argument(
        "--fresh-cache",
        action="store_true",
        help="compile every kernel anew: the first call then shows what that costs",
    )
    how.add_argument("--no-memory", action="store_true", help="leave out the peak memory of networks")
    out = parser.add_argument_group("results")
    out.add_argument("--out", default="speed", metavar="DIR", help="folder for the results (default: speed)")
    out.add_argument(
        "--compare",
        nargs="+",
        metavar="JSON",
        help="say what changed since an older results.json; with a second file, compare the two and measure nothing",
    )
    out.add_argument("--debug", action="store_true", help="show Python's traceback when something fails")
    parser.set_defaults(backend=None, bench=run)
    _add_parts(parser, fill_when_used)


def _add_parts(parser, fill_when_used):
    """Add the subcommands, whose files are read when they are used."""
    commands = parser.add_subparsers(title="parts", metavar="PART", dest="part")
    summaries = {
        "gpu": "all there is to find out on a machine with a GPU: tests, sanitizer, times beside PyTorch",
        "scaling": "how cost grows with pixels, channels and boxes",
        "ladder": "versions of one operator",
    }
    for name, summary in summaries.items():
        part = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        fill_when_used(part, lambda part, name=name: _fill(part, name))


def _fill(parser, name):
    """Add the options of a part, and what runs it."""
    import importlib

    module = importlib.import_module(f"benchmarks.{name}")
    module.add_arguments(parser)
    parser.set_defaults(bench=module.run)


def names(text):
    """Convert ``"cpu,naive"`` to a tuple of names."""
    return tuple(dict.fromkeys(part for part in text.split(",") if part))


def run(args):
    """Measure, or list, or compare, as the options say; return the exit code."""
    from benchmarks import cases, results

    check_sizes(args.sizes)
    chosen = cases.choose(args.only, args.sizes)
    if args.list:
        print("\n".join(case.name for case in chosen))
        return 0
    old = _older(args.compare)
    if old is not None and len(args.compare) == 2:
        return _print_changes(old, results.read(args.compare[1]))
    with _cache(args.fresh_cache):
        from benchmarks import running

        run = running.run(chosen, args, command_line())
    if old is not None:
        _print_changes(old, run)
    if not run.complete:
        return 130
    return 1 if run.errors() else 0


def check_sizes(sizes):
    """Check that all sizes are known."""
    unknown = [size for size in sizes if size not in SIZES]
    if unknown or not sizes:
        raise ValueError(f"--sizes is {','.join(sizes)!r}; expected some of {', '.join(SIZES)}")


def _older(paths):
    """Return the run to compare with, or None."""
    from benchmarks import results

    if paths is None:
        return None
    if len(paths) > 2:
        raise ValueError(f"--compare has {len(paths)} files; expected the older one, or an older and a newer one")
    return results.read(paths[0])


def _print_changes(old, new):
    from benchmarks import report, results

    print("\n".join(report.changes(results.compare(old, new), old, new)))
    return 0


@contextlib.contextmanager
def _cache(fresh):
    """Keep compiled kernels in an empty folder for a while, if they are to be fresh."""
    if not fresh:
        yield
        return
    import numba

    with tempfile.TemporaryDirectory(prefix="tinyseg-bench-", ignore_cleanup_errors=True) as folder:
        os.environ["NUMBA_CACHE_DIR"] = folder  # of processes that measure memory
        numba.config.CACHE_DIR = folder  # read when a kernel is declared: none has been yet
        yield


def command_line():
    """Return the command that is running, as one would type it."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["bench"]:
        arguments = arguments[1:]
    return shlex.join(["tinyseg", "bench", *arguments])
