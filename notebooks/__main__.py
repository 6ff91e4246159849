"""``python -m notebooks``: makes the notebooks from their sources, and runs them."""

import argparse
import sys
from pathlib import Path

from notebooks import sources


def main(argv=None):
    """Run the command line; return the exit code."""
    names = [path.stem for path in sources()]
    parser = argparse.ArgumentParser(prog="python -m notebooks", description="The notebooks, for whoever writes them.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    sync = commands.add_parser("sync", help="make the notebooks anew from their sources")
    sync.set_defaults(run=_sync)
    run = commands.add_parser("run", help="run them from top to bottom, and keep them with their outputs")
    run.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the notebooks with outputs go")
    run.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(names)}, or their beginnings")
    run.set_defaults(run=_run)
    args = parser.parse_args(argv)
    return args.run(args)


def _sync(args):
    from notebooks.sync import sync

    for path in sync():
        print(f"wrote {path.name}")
    return 0


def _run(args):
    from notebooks.running import run

    chosen = [path for path in sources() if not args.names or path.stem.startswith(tuple(args.names))]
    unknown = [name for name in args.names if not any(path.stem.startswith(name) for path in chosen)]
    if unknown:
        print(f"there is no notebook {', '.join(unknown)}", file=sys.stderr)
        return 2
    return run(chosen, args.out)


if __name__ == "__main__":
    sys.exit(main())
