"""``python -m benchmarks``: the same as ``tinyseg bench``."""

import sys

from tinyseg.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
