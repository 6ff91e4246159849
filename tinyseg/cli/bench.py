"""``tinyseg bench``: how fast tinyseg is, beside other libraries. What it does is in the package ``benchmarks``."""

from importlib import import_module

from tinyseg.cli.common import add_command

_SUMMARY = "measure the speed of operators and networks, beside other libraries"


def add_parser(commands):
    """Add ``bench`` to the commands."""
    parser = add_command(commands, "bench", run, _SUMMARY, None, "")
    fill_when_used(parser, _fill)


def run(args):
    """Measure; return the exit code."""
    return args.bench(args)


def fill_when_used(parser, fill):
    """Have ``fill(parser)`` add the options when a parser is first used: other commands need not read their file."""
    parse = parser.parse_known_args

    def fill_and_parse(args=None, namespace=None):
        parser.parse_known_args = parse
        try:
            fill(parser)
        except ImportError as error:
            parser.error(str(error))
        return parse(args, namespace)

    parser.parse_known_args = fill_and_parse


def _fill(parser):
    """Add the options of ``bench``."""
    _check_package()
    command = import_module("benchmarks.command")
    parser.description, parser.epilog = command.DESCRIPTION, f"examples:\n{command.EXAMPLE}"
    command.add_arguments(parser, fill_when_used)


def _check_package():
    """Raise ImportError if there is no package ``benchmarks``, or it is another project's."""
    advice = "reinstall tinyseg, or put its folder first on the path"
    try:
        module = import_module("benchmarks")
    except ImportError:
        raise ImportError(f"the package 'benchmarks', which comes with tinyseg, is not there: {advice}") from None
    if getattr(module, "PROJECT", None) != "tinyseg":
        place = getattr(module, "__file__", None) or list(module.__path__)
        raise ImportError(f"the package 'benchmarks' at {place} is not tinyseg's: {advice}")
