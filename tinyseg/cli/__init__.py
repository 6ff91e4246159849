"""The command ``tinyseg``. One file per subcommand; what is slow to import is imported inside them."""

import argparse
import sys

import tinyseg
from tinyseg.cli import bench, demo, evaluate, explain, learn, predict, train
from tinyseg.cli.common import Parser, error_line

_DESCRIPTION = """\
Image segmentation from scratch in NumPy and Numba, for people who want to see inside.

Start with 'tinyseg demo': it trains two small networks on built-in pictures in a few
minutes and writes a page that shows what came out. 'tinyseg learn' opens the course:
notebooks to step through. Then train on pictures of your own."""

_EXAMPLES = """\
examples:
  tinyseg demo
  tinyseg learn
  tinyseg train unet --data cells --pictures raw --masks truth --out runs/cells
  tinyseg predict --weights runs/cells/best.safetensors new/*.png --out masks
  tinyseg evaluate --weights runs/cells/best.safetensors --data cells --pictures raw --masks truth

'tinyseg COMMAND --help' explains each command."""


def build_parser():
    """Return the parser of the whole command line: a `Parser` (an ``argparse.ArgumentParser``)."""
    parser = Parser(
        prog="tinyseg",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tinyseg {tinyseg.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in (demo, learn, train, predict, evaluate, bench, explain):
        command.add_parser(commands)
    return parser


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        The arguments, without the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        Exit code: 0 when all went well, 1 when some of the pictures failed, 2 for a mistake in the call or the data,
        130 when interrupted.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    try:
        _apply_common(args)
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("tinyseg: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, 'head' say, has gone
        sys.stderr.close()
        return 1
    except (ValueError, TypeError, OSError, MemoryError, ImportError, ArithmeticError) as error:
        if args.debug:
            raise
        print(f"tinyseg: error: {error_line(error)}", file=sys.stderr)
        return 2


def _apply_common(args):
    """Apply the options that every command has."""
    from tinyseg import backend

    try:
        if args.backend is not None:
            backend.use_backend(args.backend)
        backend.current_backend()  # a wrong TINYSEG_BACKEND is named now, not when the first kernel runs
    except RuntimeError as error:  # no GPU
        raise ValueError(str(error)) from None
    if args.threads is not None:
        backend.set_num_threads(args.threads)
