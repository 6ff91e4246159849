"""What the subcommands share: the parser, the common options, and how mistakes are told."""

import argparse
import re
import sys


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, and whose options cannot be abbreviated."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message):
        """End the program with one line and exit code 2."""
        print(f"tinyseg: error: {message} (see '{self.prog} --help')", file=sys.stderr)
        sys.exit(2)


def add_command(commands, name, run, summary, description, example):
    """Add a subcommand with the common options; return its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_common(parser):
    """Add the options that every command has."""
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--backend",
        metavar="NAME",
        help="kernels that compute: cpu (fast, the default), cuda (NVIDIA GPUs) or naive (textbook loops, very slow)",
    )
    group.add_argument("--threads", type=int, metavar="N", help="processor threads to use (default: all)")
    group.add_argument("--debug", action="store_true", help="show Python's traceback when something fails")


def error_line(error):
    """Return an exception as one line of text."""
    if isinstance(error, MemoryError):
        return "not enough memory: try a smaller --batch, --crop or --tile"
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror[0].lower() + error.strerror[1:]
        return f"{error.filename}: {text}" if error.filename is not None else text
    text = " ".join(str(error).split())
    return text or type(error).__name__


def whole_number(minimum):
    """Return a converter for argparse: text to an int of at least ``minimum``."""

    def convert(text):
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        return value

    return convert


def number(minimum, maximum=float("inf"), *, above=False):
    """Return a converter for argparse: text to a float from ``minimum`` (or above it) to ``maximum``."""

    def convert(text):
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not (minimum < value if above else minimum <= value) or not value <= maximum or value == float("inf"):
            span = f"above {minimum:g}" if above else f"at least {minimum:g}"
            raise argparse.ArgumentTypeError(
                f"{text} is out of range: expected a number {span}"
                + (f" and at most {maximum:g}" if maximum < 1e9 else "")
            )
        return value

    return convert


def widths(text):
    """Convert ``"8,16,32"`` to a tuple of ints."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of channels such as 8,16,32,64,128")
    return values


def numbers(minimum):
    """Return a converter for argparse: text such as ``"8,16,32.5"`` to a tuple of numbers of at least ``minimum``."""

    def convert(text):
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if not values or not all(minimum <= value < float("inf") for value in values):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers of at least {minimum:g} such as 8,16,32")
        return values

    return convert


def tile(text):
    """Convert ``"auto"``, ``"none"`` or a size in pixels."""
    if text in ("auto", "none"):
        return text
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a size in pixels nor auto or none")
    return value


def interval(text):
    """Convert ``"100"`` (steps), ``"30s"`` or ``"5m"`` (time) to ``("steps", n)`` or ``("seconds", s)``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|)", text)
    if not match or float(match[1]) <= 0 or (not match[2] and "." in match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of steps (100) nor a time (30s, 5m)")
    if not match[2]:
        return ("steps", int(match[1]))
    return ("seconds", float(match[1]) * (60 if match[2] == "m" else 1))
